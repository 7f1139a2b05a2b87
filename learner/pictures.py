"""Encoder and decoder as a CPU learns them fastest: a few images at a time, there and back while they are in its cache.

A whole batch's activations are hundreds of megabytes. Each pass over them waits for memory, and the system hands out
and takes back that memory page by page in every update.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from learner.convolutions.blocks import image_blocks, kernel_blocks, kernel_pixels
from learner.convolutions.convolution import Convolution
from learner.convolutions.deconvolution import Deconvolution
from learner.convolutions.gradients import sum_of_places
from learner.layers import Total, layers_of
from learner.precision import compute_type

ROWS = 100  # images at a time, about


def normalise(image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 images (..., 64, 64, 3) to network input (N, 3, 64, 64): image/255 − 0.5, leading axes flattened.

    The channels stay last in memory, where convolutions are fastest.
    """
    flat = image.flatten(0, -4)  # (N, 64, 64, 3)
    return flat.permute(0, 3, 1, 2).to(dtype or torch.get_default_dtype()).div_(255.0).sub_(0.5)  # (N, 3, 64, 64)


def prepared(image: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images (..., 64, 64, 3) as networks learn from them: (N, 3, 64, 64), or on a CPU blocks (N, 12, 32, 32)."""
    if image.device.type != "cpu":
        return normalise(image, dtype)
    flat = image.flatten(0, -4)
    blocks = torch.empty(len(flat), 12, 32, 32, dtype=dtype, memory_format=torch.channels_last)
    for few, result in zip(_parts(flat), _parts(blocks), strict=True):
        image_blocks(few, out=result)
    return blocks


def in_blocks(image: Tensor) -> bool:
    """Whether `prepared` images are blocks."""
    return image.shape[1] == 12


class Encoding(Function):
    """Convolutions of stride 2 with ReLU."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, *parameters: Tensor) -> Tensor:
        """Images' blocks (N, 12, 32, 32), and the layers' weights and biases → embeddings (N, E)."""
        (first, bias), *others = layers_of(parameters, compute_type(parameters[0]))
        layers = [Convolution(kernel_blocks(first), bias, stride=1), *(Convolution(*layer) for layer in others)]
        results: list[list[Tensor]] = []
        for few in _parts(blocks):
            value = few.to(first.dtype)
            results.append([value := layer.forth(value) for layer in layers])
        ctx.layers = layers
        ctx.save_for_backward(blocks, *(value for values in results for value in values))
        return torch.cat([values[-1].flatten(1) for values in results])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights and biases."""
        blocks, *results = ctx.saved_tensors
        layers, total = ctx.layers, Total()
        dtype = layers[0].weight.dtype
        gradient = gradient.view(-1, *results[-1].shape[1:]).contiguous(memory_format=torch.channels_last).to(dtype)
        for number, (few, ahead) in enumerate(zip(_parts(blocks), _parts(gradient), strict=True)):
            values = [few.to(dtype), *results[number * len(layers) : (number + 1) * len(layers)]]
            ahead = torch.ops.aten.threshold_backward(ahead, values[-1], 0.0)
            gradients: list[Tensor] = []
            for index in range(len(layers) - 1, -1, -1):
                layer, value = layers[index], values[index]
                gradients = [*layer.own_gradients(ahead, value), *gradients]
                if index > 0:
                    ahead = layer.back(ahead, value)
            total.add(gradients)
        first, *others = total.gradients
        return None, kernel_pixels(first, 4), *others


class Reconstructing(Function):
    """The decoder's deconvolutions, their squared error, and already its gradients, since images are not kept."""

    @staticmethod
    def forward(ctx: Any, seeds: Tensor, blocks: Tensor, bias: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared error of all images together, and of each (N,), which has no gradient.

        Args:
            seeds: (N, C, 5, 5), the first layer's, without bias and ReLU; channels last.
            blocks: of the images (N, 12, 32, 32).
            bias: (C,) of the first layer.
            parameters: weights and biases of the other layers.
        """
        dtype = compute_type(seeds)
        layers = [Deconvolution(*layer) for layer in layers_of(parameters, dtype)]
        error, to_seeds, total = bias.new_empty(len(blocks)), torch.empty_like(seeds), Total()
        parts = (_parts(each) for each in (seeds, blocks, error, to_seeds))
        for seeds_few, blocks_few, error_few, to_seeds_few in zip(*parts, strict=True):
            values = [(seeds_few + bias[:, None, None]).relu_().to(dtype)]
            for layer in layers[:-1]:
                values.append(layer.forth(values[-1], relu=True))
            off = layers[-1].blocks(values[-1]).to(bias.dtype).sub_(blocks_few)
            torch.linalg.vector_norm(off.permute(0, 2, 3, 1).flatten(1), dim=1, out=error_few)
            ahead, *gradients = layers[-1].back_from_blocks(off.to(dtype), values[-1])
            ahead = torch.ops.aten.threshold_backward(ahead, values[-1], 0.0)
            for layer, value in zip(layers[-2::-1], values[-2::-1], strict=True):
                ahead, *own = layer.back(ahead, value)
                ahead = torch.ops.aten.threshold_backward(ahead, value, 0.0)
                gradients = [*own, *gradients]
            to_seeds_few.copy_(ahead)
            total.add([sum_of_places(ahead), *gradients])
        error.square_().mul_(0.5)
        ctx.save_for_backward(to_seeds, *total.gradients)
        ctx.mark_non_differentiable(error)
        return error.sum(), error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the seeds, and of bias, weights and biases."""
        to_seeds, *own = (each * gradient for each in ctx.saved_tensors)
        return to_seeds, None, *own


def _parts(value: Tensor) -> tuple[Tensor, ...]:
    """All rows, in equal parts: what is done once a part costs the same for a small one."""
    return value.chunk(max(1, round(len(value) / ROWS)))
