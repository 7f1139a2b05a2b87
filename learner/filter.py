"""The RSSM filter as actors need it: a few images at a time, no gradients, no prior that nobody looks at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.convolutions.windows import windows
from learner.networks import Encoder
from learner.pictures import normalise
from learner.world_model.rssm import RSSM
from learner.world_model.state import State

WINDOW_ELEMENTS = 150_000  # 0.6 MB: what a core's own cache holds


class _Convolution(NamedTuple):
    """A layer of the encoder, its memory seen in two ways; both follow when weights are loaded in place.

    Attributes:
        kernel: (O, C, k, k).
        matrix: (k · k · C, O).
        bias: (O,).
    """

    kernel: Tensor
    matrix: Tensor
    bias: Tensor


class Filter:
    """Posterior states from images, step by step: what `Encoder` and `RSSM` compute, for few images at a time.

    A convolution of few images is mostly the library's own preparations, and a product of its gathered windows with
    the kernel as a matrix is up to three times faster; once the windows outgrow the cache it is the other way round.

    Args:
        encoder: its parameters are read where they lie, and must be loaded in place.
        rssm: the same.
    """

    def __init__(self, encoder: Encoder, rssm: RSSM) -> None:
        self.rssm = rssm
        self.layers = [_seen_twice(layer) for layer in encoder.layers]

    def step(self, previous: State, action: Tensor, image: Tensor, noise: Tensor) -> State:
        """Posterior states (E, …) after `action` (E, A) led to `image`, uint8 (E, 64, 64, 3); noise (E, S)."""
        return self.rssm.look(self.rssm.recur(previous, action), self.embed(image), noise)

    def embed(self, image: Tensor) -> Tensor:
        """What the encoder makes of uint8 images (E, 64, 64, 3): (E, 32 · depth)."""
        x = normalise(image).permute(0, 2, 3, 1)  # (E, 64, 64, 3)
        for layer in self.layers:
            x = _convolve(layer, x)
        return x.permute(0, 3, 1, 2).flatten(1)  # (E, 2, 2, 8 · depth) → (E, 32 · depth)


def _seen_twice(layer: nn.Module) -> _Convolution:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    kernel = layer.weight.detach()
    # A view, or an error: a copy would miss the weights that are loaded later.
    matrix = kernel.permute(0, 2, 3, 1).view(len(kernel), -1).t()
    return _Convolution(kernel, matrix, layer.bias.detach())


def _convolve(layer: _Convolution, x: Tensor) -> Tensor:
    """The ReLU of a stride-2 convolution: (E, h, w, C), contiguous → (E, (h − k) / 2 + 1, …, O), contiguous."""
    count, height, width, _ = x.shape
    size = layer.kernel.shape[-1]
    rows, columns = (height - size) // 2 + 1, (width - size) // 2 + 1
    if count * rows * columns * len(layer.matrix) > WINDOW_ELEMENTS:
        convolved = functional.conv2d(x.permute(0, 3, 1, 2), layer.kernel, layer.bias, 2)
        return functional.relu_(convolved).permute(0, 2, 3, 1).contiguous()
    seen = windows(x, size).flatten(0, 2)  # (E · h · w, k · k · C)
    product = torch.addmm(layer.bias, seen, layer.matrix)  # (E · h · w, O)
    return functional.relu_(product).view(count, rows, columns, -1)
