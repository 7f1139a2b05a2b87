"""The feed-forward networks: image encoder and decoder, and multi-layer perceptrons with ELU (algorithms section 2)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from learner.initialisation import initialise_like_keras


def normalise(image: Tensor) -> Tensor:
    """uint8 images (..., 64, 64, 3) to network input (N, 3, 64, 64): image/255 − 0.5, leading axes flattened.

    The channels stay last in memory, where convolutions are fastest.
    """
    flat = image.flatten(0, -4)  # (N, 64, 64, 3)
    return flat.permute(0, 3, 1, 2).float() / 255.0 - 0.5  # (N, 3, 64, 64)


class Encoder(nn.Module):
    """Four stride-2 convolutions with kernel 4 and ReLU: (N, 3, 64, 64) → (N, 32 · depth)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.size = 32 * depth
        sizes = (3, depth, 2 * depth, 4 * depth, 8 * depth)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 4, stride=2) for i, o in pairwise(sizes))
        initialise_like_keras(self)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, 64, 64) → embeddings (N, 32 · depth)."""
        x = image
        for layer in self.layers:
            x = functional.relu(layer(x))
        return x.flatten(1)  # (N, 8 · depth, 2, 2) → (N, 32 · depth)


class Decoder(nn.Module):
    """A dense layer and four stride-2 transposed convolutions with ReLU: (N, F) → image means (N, 3, 64, 64)."""

    def __init__(self, feature_size: int, depth: int) -> None:
        super().__init__()
        self.dense = nn.Linear(feature_size, 32 * depth)
        channels = (32 * depth, 4 * depth, 2 * depth, depth, 3)
        kernels = (5, 5, 6, 6)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(i, o, k, stride=2) for i, o, k in zip(channels[:-1], channels[1:], kernels, strict=True)
        )
        initialise_like_keras(self)

    def forward(self, feature: Tensor) -> Tensor:
        """Features (N, F) → means (N, 3, 64, 64) of a unit-variance Normal over normalised images."""
        x = self.dense(feature)[:, :, None, None]  # (N, 32 · depth, 1, 1)
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class Mlp(nn.Sequential):
    """`layers` hidden ELU layers of `units`, then a linear output of `outputs`; (..., inputs) → (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, layers: int, units: int) -> None:
        sizes = [inputs, *[units] * layers]
        hidden = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), nn.ELU())]
        super().__init__(*hidden, nn.Linear(sizes[-1], outputs))
        initialise_like_keras(self)


class ScalarHead(Mlp):
    """An MLP with one output, squeezed: (..., F) → (...). The mean of a Normal(·, 1), or a Bernoulli's logit."""

    def __init__(self, inputs: int, layers: int, units: int) -> None:
        super().__init__(inputs, 1, layers, units)

    def forward(self, feature: Tensor) -> Tensor:
        """Features (..., F) → one number each (...)."""
        return super().forward(feature).squeeze(-1)
