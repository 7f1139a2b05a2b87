"""Rotation: bilinear, edges replicated, about the centre, counter-clockwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from actors.rotation import rotate


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def test_zero_leaves_the_image_untouched() -> None:
    image = noise()
    assert rotate(image, 0.0) is image


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_right_angles_turn_the_pixels_counter_clockwise(turns: int) -> None:
    assert np.array_equal(rotate(noise(), 90.0 * turns), np.rot90(noise(), turns))


@settings(max_examples=25, deadline=None)
@given(degrees=st.floats(-180, 180).filter(lambda degrees: abs(degrees) > 1e-6), seed=st.integers(0, 9))
def test_agrees_with_scipy(degrees: float, seed: int) -> None:
    image = noise(seed)
    turned = ndimage.rotate(image.astype(np.float64), degrees, reshape=False, order=1, mode="nearest")
    assert np.abs(rotate(image, degrees) - turned).max() <= 0.5 + 1e-6


def test_edges_are_replicated() -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    assert (rotate(image, 5.0) == 200).all()


def test_image_itself_is_not_changed() -> None:
    image = noise()
    turned = rotate(image, 5.0)
    assert np.array_equal(image, noise())
    assert turned.shape == (64, 64, 3)
    assert turned.dtype == np.uint8
