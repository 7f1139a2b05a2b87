"""Blocks of 2 × 2 pixels: convolutions over them are those of stride 2 over the pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learner.convolutions.blocks import image_blocks, kernel_blocks, kernel_pixels, pixels
from learner.pictures import normalise


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def blocks_of(image: Tensor) -> Tensor:
    count, height, width, channels = image.shape
    result = torch.empty(count, 4 * channels, height // 2, width // 2, dtype=torch.float64)
    result = result.contiguous(memory_format=torch.channels_last)
    image_blocks(image, out=result)
    return result


@pytest.mark.parametrize(("count", "height", "width"), [(1, 2, 2), (3, 6, 4), (2, 64, 64)])
def test_pixels_of_an_images_blocks_are_the_normalised_image(count: int, height: int, width: int) -> None:
    image = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)
    torch.testing.assert_close(pixels(blocks_of(image), height, width), normalise(image, torch.float64))


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 3), (7, 5), (8, 4), (5, 5)])
def test_pixels_are_cut_off_or_followed_by_zeros(height: int, width: int) -> None:
    image = torch.randint(0, 256, (2, 6, 4, 3), dtype=torch.uint8)
    expected = torch.zeros(2, 3, height, width, dtype=torch.float64)
    h, w = min(height, 6), min(width, 4)
    expected[:, :, :h, :w] = normalise(image, torch.float64)[:, :, :h, :w]
    torch.testing.assert_close(pixels(blocks_of(image), height, width), expected)


@pytest.mark.parametrize("kernel", [1, 2, 4, 5, 6])
def test_a_convolution_of_stride_2_is_one_of_stride_1_over_blocks(kernel: int) -> None:
    image = torch.randint(0, 256, (2, 12, 10, 3), dtype=torch.uint8)
    weight = normal(5, 3, kernel, kernel)
    expected = functional.conv2d(normalise(image, torch.float64), weight, stride=2)
    actual = functional.conv2d(blocks_of(image), kernel_blocks(weight))
    torch.testing.assert_close(actual[:, :, : expected.shape[2], : expected.shape[3]], expected)


@pytest.mark.parametrize("kernel", [1, 2, 4, 5, 6])
def test_a_kernel_comes_back_from_its_blocks(kernel: int) -> None:
    weight = normal(5, 3, kernel, kernel)
    torch.testing.assert_close(kernel_pixels(kernel_blocks(weight), kernel), weight, rtol=0, atol=0)
