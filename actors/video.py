"""Episodes as video files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.config import EnvironmentConfig
from common.durable import replace_durably
from common.errors import UserError
from common.reports import Film

FILMED_EPISODES = 4
"""Episodes of an evaluation that are filmed, side by side."""
CONTROL_STEPS_PER_SECOND = 50
_PALETTE_FRAMES = 12


def frames_per_second(config: EnvironmentConfig) -> float:
    """The speed at which an episode's frames are shown: one a row, 50 control steps a second."""
    return CONTROL_STEPS_PER_SECOND / config.action_repeat


def write_video(path: str | Path, frames: NDArray[np.uint8], fps: float, scale: int = 4) -> None:
    """Writes frames as H.264 (.mp4) or as an endless .gif.

    Args:
        path: where to; the suffix decides.
        frames: uint8 (T, H, W, 3), T ≥ 1.
        fps: frames a second.
        scale: every pixel becomes a square of this many.

    Raises:
        UserError: the suffix is another.
    """
    path = Path(path)
    encode = {".mp4": _mp4, ".gif": _gif}.get(path.suffix)
    if encode is None:
        raise UserError(f"videos end in .mp4 or .gif, not {path.name!r}")
    replace_durably(path, encode(frames, fps, scale))


def film(episodes: Sequence[NDArray[np.uint8]], fps: float) -> Film:
    """Encodes recorded episodes, each (T_i, H, W, 3), shown `fps` frames a second."""
    return Film(mp4=_mp4(side_by_side(episodes), fps, scale=4), gif=_gif(episodes[0], fps, scale=1))


def side_by_side(episodes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lays episodes (T_i, H, W, 3) in a row, (max T_i, H, Σ W, 3); a shorter one stays on its last frame."""
    longest = max(len(episode) for episode in episodes)
    held = [episode[np.minimum(np.arange(longest), len(episode) - 1)] for episode in episodes]
    return np.concatenate(held, axis=2)


def _enlarged(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """One frame at a time: an episode of large ones takes hundreds of megabytes."""
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def _gif(frames: NDArray[np.uint8], fps: float, scale: int) -> bytes:
    # One palette for all frames and no dithering: half the size, and what stands still does not flicker.
    some = frames[:: -(-len(frames) // _PALETTE_FRAMES)]
    palette = Image.fromarray(some.reshape(-1, *some.shape[2:])).quantize(256)
    first, *others = (
        Image.fromarray(_enlarged(frame, scale)).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    )
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)
    return file.getvalue()


def _mp4(frames: NDArray[np.uint8], fps: float, scale: int) -> bytes:
    height, width = scale * frames.shape[1], scale * frames.shape[2]
    # 4:2:0 shares colour between 2×2 pixels, so both sides must be even.
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1000), options={"preset": "veryfast"}
        )
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            large = np.pad(_enlarged(frame, scale), padding, mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
