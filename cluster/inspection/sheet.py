"""A picture laid out in pixels, so that every pixel of an image becomes a square of equal size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cluster.look import TEXT

IMAGE = 64
_DPI = 100
_POINTS_PER_PIXEL = 72 / _DPI


class Sheet:
    """Images and words on white; positions in pixels from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._canvas = np.full((height, width, 3), 255, np.uint8)
        self._words: list[tuple[float, float, str, dict[str, Any]]] = []

    def image(self, left: int, top: int, image: NDArray[np.uint8], scale: int) -> None:
        """An image (H, W, 3), every pixel a square of `scale`."""
        large = image.repeat(scale, 0).repeat(scale, 1)
        self._canvas[top : top + large.shape[0], left : left + large.shape[1]] = large

    def bar(self, left: int, top: int, width: int, height: int, colour: str) -> None:
        """A filled rectangle; the colour is #rrggbb."""
        self._canvas[top : top + height, left : left + width] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]

    def text(self, x: float, y: float, text: str, size: float = 20, colour: str = TEXT, **options: Any) -> None:
        """Words `size` pixels high; `ha`, `va` and the like as matplotlib's."""
        options = {"va": "center", "ha": "left", "fontsize": size * _POINTS_PER_PIXEL, "color": colour, **options}
        self._words.append((x, y, text, options))

    def pixels(self) -> NDArray[np.uint8]:
        """What it looks like, (H, W, 3)."""
        canvas = FigureCanvasAgg(self._figure())
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def save(self, path: Path) -> None:
        """Writes a picture."""
        self._figure().savefig(path, dpi=_DPI)

    def _figure(self) -> Figure:
        height, width, _ = self._canvas.shape
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        figure.figimage(self._canvas, 0, 0, origin="upper")
        for x, y, text, options in self._words:
            figure.text(x / width, 1 - y / height, text, **options)
        return figure


def as_pixels(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Images in ±0.5, beyond it clipped, to uint8."""
    return np.rint((np.clip(image, -0.5, 0.5) + 0.5) * 255).astype(np.uint8)
