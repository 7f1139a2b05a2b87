"""Encoder and decoder, from the parameters of the module under test."""

from __future__ import annotations

import numpy as np
from torch import nn

from tests.learner.reference.layers import convolution, dense, transposed_convolution


def encode(encoder: nn.Module, image: np.ndarray) -> np.ndarray:
    """Images (N, 3, 64, 64) → embeddings (N, E)."""
    for layer in (m for m in encoder.modules() if isinstance(m, nn.Conv2d)):
        image = np.maximum(convolution(layer, image, stride=2), 0.0)
    return image.reshape(len(image), -1)


def decode(decoder: nn.Module, feature: np.ndarray) -> np.ndarray:
    """Features (N, F) → images (N, 3, 64, 64)."""
    (first,) = (m for m in decoder.modules() if isinstance(m, nn.Linear))
    image = dense(first, feature)[:, :, None, None]
    for i, layer in enumerate(m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)):
        image = transposed_convolution(layer, image if i == 0 else np.maximum(image, 0.0), stride=2)
    return image
