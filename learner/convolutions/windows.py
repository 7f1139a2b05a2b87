"""What a convolution sees, as the rows of a matrix."""

from __future__ import annotations

from torch import Tensor


def windows(value: Tensor, size: int, stride: int = 2) -> Tensor:
    """(N, H, W, C) → (N, (H − size) / stride + 1, (W − size) / stride + 1, size · size · C), a copy."""
    count, height, width, channels = value.shape
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    line = width * channels
    strides = (height * line, stride * line, stride * channels, line, 1)
    # The pixels of a window's line lie side by side, all channels of each.
    seen = value.contiguous().as_strided((count, rows, columns, size, size * channels), strides)
    return seen.reshape(count, rows, columns, -1)
