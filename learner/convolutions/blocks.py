"""Images as blocks of 2 × 2 pixels, whose values are channels of one place at half the resolution.

A convolution of stride 2 over pixels is one of stride 1 over their blocks, and gives the same numbers. On a CPU three
colours leave most of a register empty, and rows that are skipped are read all the same; twelve channels do better.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

threshold_backward = torch.ops.aten.threshold_backward.grad_input


def image_blocks(image: Tensor, out: Tensor) -> None:
    """Writes the blocks of uint8 images, normalised to image/255 − 0.5.

    Args:
        image: (N, H, W, C).
        out: (N, 4 · C, H/2, W/2), channels last.
    """
    count, height, width, channels = image.shape
    pairs = image.reshape(-1, 2 * channels)  # two pixels beside each other stay so
    blocks = pairs.index_select(0, _order(count, height // 2, width // 2))
    values = out.permute(0, 2, 3, 1).copy_(blocks.view(count, height // 2, width // 2, -1))
    torch.add(values.new_tensor(-0.5), values, alpha=1.0 / 255.0, out=values)


@functools.lru_cache(maxsize=4)
def _order(count: int, rows: int, columns: int) -> Tensor:
    """Of pairs of pixels (N, 2 · rows, columns), numbered as they lie in memory: those of a block after each other."""
    return torch.arange(count * rows * 2 * columns).view(-1, 2, columns).transpose(1, 2).reshape(-1)


def pixels(blocks: Tensor, height: int, width: int) -> Tensor:
    """Blocks (N, 4 · C, h, w) → (N, C, height, width), channels last: cut off, or with zeros beyond them."""
    count, channels, h, w = blocks.shape
    whole = (max(height, 2 * h), max(width, 2 * w))
    result = blocks.new_empty(count, *whole, channels // 4)
    result[:, 2 * h :].zero_()
    result[:, :, 2 * w :].zero_()
    _places(result, h, w).copy_(_in_places(blocks))
    if whole != (height, width):
        result = result[:, :height, :width].contiguous()
    return result.permute(0, 3, 1, 2)


def pixels_where(blocks: Tensor, value: Tensor) -> Tensor:
    """`pixels` of the value's size (N, C, H, W), with zeros where it is not positive: a way back through its ReLU."""
    h, w = blocks.shape[-2:]
    result = torch.empty_like(value.permute(0, 2, 3, 1))
    result[:, 2 * h :].zero_()
    result[:, :, 2 * w :].zero_()
    seen = _places(value.permute(0, 2, 3, 1), h, w)
    threshold_backward(_in_places(blocks), seen, 0.0, grad_input=_places(result, h, w))
    return result.permute(0, 3, 1, 2)


def _places(value: Tensor, h: int, w: int) -> Tensor:
    """What blocks cover of (N, H, W, C): (N, h, 2, w, 2, C)."""
    return value[:, : 2 * h, : 2 * w].unflatten(1, (h, 2)).unflatten(3, (w, 2))


def _in_places(blocks: Tensor) -> Tensor:
    """Blocks (N, 4 · C, h, w) → (N, h, 2, w, 2, C)."""
    return blocks.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1)).transpose(2, 3)


def kernel_blocks(weight: Tensor) -> Tensor:
    """Kernels over pixels (O, C, K, K) → over blocks (O, 4 · C, T, T), where T is half of K, rounded up."""
    outputs, channels, kernel, _ = weight.shape
    taps = (kernel + 1) // 2
    even = functional.pad(weight, (0, 2 * taps - kernel, 0, 2 * taps - kernel))
    return even.view(outputs, channels, taps, 2, taps, 2).permute(0, 3, 5, 1, 2, 4).reshape(outputs, -1, taps, taps)


def kernel_pixels(weight: Tensor, kernel: int) -> Tensor:
    """Kernels over blocks (O, 4 · C, T, T), or their gradients → over pixels (O, C, K, K)."""
    apart = weight.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2)  # (O, C, T, 2, T, 2)
    return apart.flatten(4, 5).flatten(2, 3)[..., :kernel, :kernel]
