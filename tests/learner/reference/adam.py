"""Adam (Kingma and Ba, algorithm 1) on gradients whose global norm is clipped."""

from __future__ import annotations

import numpy as np


class ReferenceAdam:
    """Holds the parameters, both moments and the step count."""

    def __init__(self, parameters: list[np.ndarray], rate: float, epsilon: float, clip: float) -> None:
        self.parameters = [parameter.copy() for parameter in parameters]
        self.rate, self.epsilon, self.clip = rate, epsilon, clip
        self.first = [np.zeros_like(p) for p in parameters]
        self.second = [np.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, gradients: list[np.ndarray]) -> float:
        """Moves the parameters; returns the gradients' global norm before clipping."""
        self.steps += 1
        norm = float(np.sqrt(sum((gradient**2).sum() for gradient in gradients)))
        scale = min(1.0, self.clip / norm)
        for i, gradient in enumerate(gradients):
            self.first[i] = 0.9 * self.first[i] + 0.1 * scale * gradient
            self.second[i] = 0.999 * self.second[i] + 0.001 * (scale * gradient) ** 2
            mean = self.first[i] / (1.0 - 0.9**self.steps)
            square = self.second[i] / (1.0 - 0.999**self.steps)
            self.parameters[i] = self.parameters[i] - self.rate * mean / (np.sqrt(square) + self.epsilon)
        return norm
