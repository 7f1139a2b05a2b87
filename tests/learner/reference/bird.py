"""BIRD's confidence and the two entropies of a policy, trajectory by trajectory."""

from __future__ import annotations

import numpy as np

from tests.learner.reference.densities import tanh_normal_log_prob


def confidence_weight(log_prob: np.ndarray) -> np.ndarray:
    """c_i = sum over tau of row i's log densities (H, N); w = clip((c − mean) / (population std + 1e-9) + 1, 0, 2)."""
    trajectories = log_prob.shape[1]
    confidence = [sum(float(x) for x in log_prob[:, i]) for i in range(trajectories)]
    mean = sum(confidence) / trajectories
    std = (sum((c - mean) ** 2 for c in confidence) / trajectories) ** 0.5
    return np.array([min(max((c - mean) / (std + 1e-9) + 1.0, 0.0), 2.0) for c in confidence])


def gaussian_entropy(std: np.ndarray) -> np.ndarray:
    """Sum over A of 1/2 · ln(2 pi e std²)."""
    return np.sum(0.5 * np.log(2.0 * np.pi * np.e * std**2), axis=-1)


def sampled_entropy(mean: np.ndarray, std: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """−mean of ln pi over the samples tanh(mean + std · noise), noise (K, ..., A)."""
    total = np.zeros(mean.shape[:-1])
    for draw in noise:
        total -= tanh_normal_log_prob(mean + std * draw, mean, std)
    return total / len(noise)


def entropy(mean: np.ndarray, std: np.ndarray, form: str, noise: np.ndarray) -> np.ndarray:
    """Either form."""
    return gaussian_entropy(std) if form == "gaussian" else sampled_entropy(mean, std, noise)


def tanh_normal_entropy(mean: float, std: float) -> float:
    """In one dimension, by quadrature: the Gaussian's entropy + E[ln(1 − tanh²u)]."""
    z = np.linspace(-12.0, 12.0, 200_001)
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    u = mean + std * z
    log_slope = np.log(4.0) - 2.0 * np.logaddexp(u, -u)
    expected = float((density * log_slope).sum() * (z[1] - z[0]))
    return 0.5 * np.log(2.0 * np.pi * np.e * std**2) + expected
