"""InfoNCE, pair by pair."""

from __future__ import annotations

import numpy as np

from tests.learner.reference.densities import normal_log_prob


def pairwise_normal_log_prob(value: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """m[i, j] = ln N(value_i; mean_j, std_j²), summed over F."""
    pairs = np.zeros((len(value), len(mean)))
    for i, each in enumerate(value):
        pairs[i] = normal_log_prob(each, mean, std).sum(-1)
    return pairs


def info_nce(log_prob: np.ndarray, sum_over: str) -> float:
    """mean over i of m[i, i] − ln(sum of e^m): over j, the observations (eq. 12), or over the states that share i's."""
    total = 0.0
    for i in range(len(log_prob)):
        rivals = log_prob[i] if sum_over == "observations" else log_prob[:, i]
        top = rivals.max()
        total += log_prob[i, i] - (top + np.log(np.exp(rivals - top).sum()))
    return total / len(log_prob)
