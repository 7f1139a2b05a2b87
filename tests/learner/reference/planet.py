"""The cross-entropy method, environment by environment and number by number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cross_entropy_method(
    evaluate: Callable[[int, int, np.ndarray], float], mean: np.ndarray, std: np.ndarray, top: int, noise: np.ndarray
) -> np.ndarray:
    """Final means (E, T, A) from noise (iterations, E, C, T, A).

    `evaluate(iteration, environment, sequence)` scores one sequence (T, A). Candidates are clipped to ±1; the mean and
    sqrt(population variance + 1e-6) of the `top` best of an environment's are where its next iteration draws.
    """
    final = mean.copy()
    for e in range(len(mean)):
        centre, width = mean[e], std[e]
        for i, draws in enumerate(noise[:, e]):
            candidates = [np.minimum(np.maximum(centre + width * draw, -1.0), 1.0) for draw in draws]
            ranked = sorted(candidates, key=lambda sequence: -evaluate(i, e, sequence))
            elite = ranked[:top]
            centre = sum(elite) / top
            variance = sum((sequence - centre) ** 2 for sequence in elite) / top
            width = np.sqrt(variance + 1e-6)
        final[e] = centre
    return final
