"""The feed-forward networks: image encoder and decoder, and multi-layer perceptrons with ELU (algorithms section 2)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.convolutions.deconvolution import deconvolve
from learner.initialisation import initialise_like_keras
from learner.pictures import Encoding, Reconstructing, in_blocks


class Encoder(nn.Module):
    """Four stride-2 convolutions with kernel 4 and ReLU: (N, 3, 64, 64) → (N, 32 · depth)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.size = 32 * depth
        sizes = (3, depth, 2 * depth, 4 * depth, 8 * depth)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 4, stride=2) for i, o in pairwise(sizes))
        initialise_like_keras(self)
        _channels_last(self)

    def forward(self, image: Tensor) -> Tensor:
        """Images, normalised (N, 3, 64, 64) or as blocks (N, 12, 32, 32) → embeddings (N, 32 · depth)."""
        if in_blocks(image):
            return Encoding.apply(image, *self.layers.parameters())
        x = image
        for layer in self.layers:
            x = functional.relu(layer(x), inplace=True)
        return x.flatten(1)  # (N, 8 · depth, 2, 2) → (N, 32 · depth)


class Decoder(nn.Module):
    """A dense layer and four stride-2 transposed convolutions with ReLU: (N, F) → image means (N, 3, 64, 64)."""

    def __init__(self, feature_size: int, depth: int) -> None:
        super().__init__()
        self.dense = nn.Linear(feature_size, 32 * depth)
        self.first = nn.ConvTranspose2d(32 * depth, 4 * depth, 5)
        channels = (4 * depth, 2 * depth, depth, 3)
        kernels = (5, 6, 6)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(i, o, k, stride=2) for (i, o), k in zip(pairwise(channels), kernels, strict=True)
        )
        initialise_like_keras(self)
        _channels_last(self)

    def forward(self, feature: Tensor) -> Tensor:
        """Features (N, F) → means (N, 3, 64, 64) of a unit-variance Normal over normalised images."""
        assert self.first.bias is not None
        x = functional.relu(self._seeds(feature) + self.first.bias[:, None, None])
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            weight, bias = layer.parameters()
            x = deconvolve(x, weight, bias, relu=number < last)
        return x

    def error(self, feature: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared error of all means together, and of each (N,), detached; on a CPU.

        Args:
            feature: (N, F).
            blocks: of the images (N, 12, 32, 32).
        """
        return Reconstructing.apply(self._seeds(feature), blocks, self.first.bias, *self.layers.parameters())

    def _seeds(self, feature: Tensor) -> Tensor:
        """The first layer's results (N, 4 · depth, 5, 5) without its bias, channels last.

        A transposed convolution of a single pixel is a product with its kernel, and much faster as one.
        """
        matrix = self.first.weight.permute(0, 2, 3, 1)  # (32 · depth, 5, 5, 4 · depth), as it lies in memory
        seeds = (self.dense(feature) @ matrix.flatten(1)).unflatten(1, matrix.shape[1:])
        return seeds.permute(0, 3, 1, 2)


class Mlp(nn.Sequential):
    """`layers` hidden ELU layers of `units`, then a linear output of `outputs`; (..., inputs) → (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, layers: int, units: int) -> None:
        sizes = [inputs, *[units] * layers]
        hidden = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), nn.ELU(inplace=True))]
        super().__init__(*hidden, nn.Linear(sizes[-1], outputs))
        initialise_like_keras(self)


class ScalarHead(Mlp):
    """An MLP with one output, squeezed: (..., F) → (...). The mean of a Normal(·, 1), or a Bernoulli's logit."""

    def __init__(self, inputs: int, layers: int, units: int) -> None:
        super().__init__(inputs, 1, layers, units)

    def forward(self, feature: Tensor) -> Tensor:
        """Features (..., F) → one number each (...)."""
        return super().forward(feature).squeeze(-1).to(feature.dtype)


def _channels_last(network: nn.Module) -> None:
    """Lays kernels out with channels last: images come so, outputs follow, and convolutions are fastest so."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
