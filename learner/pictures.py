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
from torch.nn import functional

from learner.deconvolution import Deconvolution, weight_gradient
from learner.layers import Total, layers_of
from learner.precision import compute_type

ROWS = 64  # images at a time


def normalise(image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 images (..., 64, 64, 3) to network input (N, 3, 64, 64): image/255 − 0.5, leading axes flattened.

    The channels stay last in memory, where convolutions are fastest.
    """
    flat = image.flatten(0, -4)  # (N, 64, 64, 3)
    return flat.permute(0, 3, 1, 2).to(dtype or torch.get_default_dtype()).div_(255.0).sub_(0.5)  # (N, 3, 64, 64)


def prepared(image: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images (..., 64, 64, 3) as networks learn from them: flattened, and normalised too where that is no CPU."""
    return image.flatten(0, -4) if image.device.type == "cpu" else normalise(image, dtype)


class Encoding(Function):
    """Convolutions of stride 2 with ReLU."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, *parameters: Tensor) -> Tensor:
        """uint8 images (N, 64, 64, 3), and the layers' weights and biases → embeddings (N, E)."""
        ctx.exact, dtype = parameters[0].dtype, compute_type(parameters[0])
        layers = layers_of(parameters, dtype)
        results: list[list[Tensor]] = []
        for few in image.split(ROWS):
            value = normalise(few, ctx.exact).to(dtype)
            results.append([value := functional.conv2d(value, *layer, stride=2).relu_() for layer in layers])
        ctx.weights = [weight for weight, _ in layers]
        ctx.save_for_backward(image, *(result for few in results for result in few))
        return torch.cat([few[-1].flatten(1) for few in results])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights and biases."""
        image, *results = ctx.saved_tensors
        weights = ctx.weights
        total = Total()
        for number, (image_few, gradient_few) in enumerate(zip(image.split(ROWS), gradient.split(ROWS), strict=True)):
            values = results[number * len(weights) : (number + 1) * len(weights)]
            inputs = (normalise(image_few, ctx.exact).to(weights[0].dtype), *values[:-1])
            ahead = gradient_few.to(weights[0].dtype).view_as(values[-1])
            gradients: list[Tensor] = []
            for layer in range(len(weights) - 1, -1, -1):
                ahead = torch.ops.aten.threshold_backward(ahead, values[layer], 0.0)
                own = [weight_gradient(ahead, inputs[layer], weights[layer], (2, 2)), ahead.sum((0, 2, 3))]
                gradients = [*own, *gradients]
                if layer > 0:
                    ahead = torch.ops.aten.convolution_backward(
                        ahead,
                        inputs[layer],
                        weights[layer],
                        None,
                        [2, 2],
                        [0, 0],
                        [1, 1],
                        False,
                        [0, 0],
                        1,
                        [True, False, False],
                    )[0]
            total.add(gradients)
        return None, *total.gradients


class Reconstructing(Function):
    """The decoder's deconvolutions, their squared error, and already its gradients, since images are not kept."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, image: Tensor, bias: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared error of all images together, and of each (N,), which has no gradient.

        Args:
            pixels: (N, C, 5, 5), the first layer's, without bias and ReLU.
            image: uint8 (N, 64, 64, 3).
            bias: (C,) of the first layer.
            parameters: weights and biases of the other layers.
        """
        dtype = compute_type(pixels)
        layers = [Deconvolution(*layer) for layer in layers_of(parameters, dtype)]
        error, to_pixels, total = bias.new_empty(len(image)), torch.empty_like(pixels), Total()
        parts = (part.split(ROWS) for part in (pixels, image, error, to_pixels))
        for pixels_few, image_few, error_few, to_pixels_few in zip(*parts, strict=True):
            values = [(pixels_few + bias[:, None, None]).relu_().to(dtype)]
            for layer in layers[:-1]:
                values.append(layer.forth(values[-1], relu=True))
            off = layers[-1].forth(values[-1], relu=False).to(bias.dtype).sub_(normalise(image_few, bias.dtype))
            torch.linalg.vector_norm(off.permute(0, 2, 3, 1).flatten(1), dim=1, out=error_few)
            ahead = off.to(dtype)
            gradients: list[Tensor] = []
            for layer, value in zip(layers[::-1], values[::-1], strict=True):
                ahead, *own = layer.back(ahead, value)
                ahead = torch.ops.aten.threshold_backward(ahead, value, 0.0)
                gradients = [*own, *gradients]
            to_pixels_few.copy_(ahead)
            total.add([ahead.sum((0, 2, 3)), *gradients])
        error.square_().mul_(0.5)
        ctx.save_for_backward(to_pixels, *total.gradients)
        ctx.mark_non_differentiable(error)
        return error.sum(), error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the pixels, and of bias, weights and biases."""
        to_pixels, *own = (each * gradient for each in ctx.saved_tensors)
        return to_pixels, None, *own
