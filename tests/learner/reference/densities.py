"""Log densities and divergences, constants included."""

from __future__ import annotations

import numpy as np


def normal_log_prob(x: np.ndarray, mean: np.ndarray, std: np.ndarray | float = 1.0) -> np.ndarray:
    """ln N(x; mean, std), elementwise."""
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)


def tanh_normal_log_prob(pretanh: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """ln of the density of a = tanh(u) at u: ln N(u) − ln |da/du|, summed over the last axis.

    da/du = 1 − tanh²u = 4 / (e^u + e^−u)².
    """
    log_slope = np.log(4.0) - 2.0 * np.logaddexp(pretanh, -pretanh)
    return np.sum(normal_log_prob(pretanh, mean, std) - log_slope, axis=-1)


def normal_kl(mean_q: np.ndarray, std_q: np.ndarray, mean_p: np.ndarray, std_p: np.ndarray) -> np.ndarray:
    """KL(N(mean_q, std_q) ‖ N(mean_p, std_p)) with diagonal covariance, summed over the last axis."""
    each = np.log(std_p / std_q) + (std_q**2 + (mean_q - mean_p) ** 2) / (2.0 * std_p**2) - 0.5
    return np.sum(each, axis=-1)


def bernoulli_log_prob(soft_label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Soft label p of a Bernoulli: p ln q + (1 − p) ln(1 − q)."""
    return soft_label * np.log(probability) + (1.0 - soft_label) * np.log(1.0 - probability)
