"""The robustness test's disturbance: images turned about their centre (IDM's experiments)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """An image (H, W, C) turned counter-clockwise about its centre: bilinear, with edges replicated.

    An angle of 0 returns the image untouched.
    """
    if degrees == 0:
        return image
    height, width = image.shape[:2]
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    down, right = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width] - np.array([down, right])[:, None, None]
    source_y = np.clip(cosine * y + sine * x + down, 0, height - 1)
    source_x = np.clip(cosine * x - sine * y + right, 0, width - 1)
    top = np.minimum(source_y.astype(np.intp), height - 2)
    left = np.minimum(source_x.astype(np.intp), width - 2)
    below, beside = (source_y - top)[..., None], (source_x - left)[..., None]
    upper = (1 - beside) * image[top, left] + beside * image[top, left + 1]
    lower = (1 - beside) * image[top + 1, left] + beside * image[top + 1, left + 1]
    return np.rint((1 - below) * upper + below * lower).astype(np.uint8)
