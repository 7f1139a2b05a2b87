"""Returns and weights of an imagined trajectory; row 0 holds tau = 1."""

from __future__ import annotations

import numpy as np


def lambda_return(reward: np.ndarray, value: np.ndarray, discount: np.ndarray, lambda_: float) -> np.ndarray:
    """R_H = v_H, and for tau = H−1..1: R_tau = r_tau + gamma_tau · ((1 − λ) · v_{tau+1} + λ · R_{tau+1})."""
    horizon, trajectories = reward.shape
    returns = np.zeros((horizon - 1, trajectories))
    for n in range(trajectories):
        following = value[horizon - 1, n]
        for tau in reversed(range(horizon - 1)):
            mixed = (1.0 - lambda_) * value[tau + 1, n] + lambda_ * following
            following = reward[tau, n] + discount[tau, n] * mixed
            returns[tau, n] = following
    return returns


def n_step_return(reward: np.ndarray, value: np.ndarray, discount: np.ndarray, tau: int, steps: int) -> np.ndarray:
    """`steps` rewards from tau on, then the value, everything discounted to tau: Dreamer's eq. 5."""
    total, weight = np.zeros(reward.shape[1]), np.ones(reward.shape[1])
    for k in range(tau, tau + steps):
        total = total + weight * reward[k]
        weight = weight * discount[k]
    return total + weight * value[tau + steps]


def cumulative_discount(discount: np.ndarray) -> np.ndarray:
    """D_1 = 1, D_tau = product of gamma_k over k < tau, for tau = 1..H−1."""
    horizon, trajectories = discount.shape
    weights = np.ones((horizon - 1, trajectories))
    for tau in range(horizon - 1):
        for k in range(tau):
            weights[tau] *= discount[k]
    return weights


def horizon_return(reward: np.ndarray, discount: np.ndarray) -> np.ndarray:
    """V_R(tau) = sum over n = tau..H of r_n · product of gamma_k over tau <= k < n: Dreamer's eq. 4 where gamma = 1."""
    horizon, trajectories = reward.shape
    returns = np.zeros((horizon, trajectories))
    for tau in range(horizon):
        weight = np.ones(trajectories)
        for n in range(tau, horizon):
            returns[tau] += weight * reward[n]
            weight = weight * discount[n]
    return returns
