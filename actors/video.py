"""Episodes as video files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

from common.config import EnvironmentConfig
from common.errors import UserError

FILMED_EPISODES = 4
"""Episodes of an evaluation that are filmed, side by side."""
CONTROL_STEPS_PER_SECOND = 50


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
    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    if path.suffix == ".mp4":
        _write_mp4(path, large, fps)
    elif path.suffix == ".gif":
        imageio.imwrite(path, large, plugin="pillow", extension=".gif", duration=1000 / fps, loop=0)
    else:
        raise UserError(f"videos end in .mp4 or .gif, not {path.name!r}")


def side_by_side(episodes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lays episodes (T_i, H, W, 3) in a row, (max T_i, H, Σ W, 3); a shorter one stays on its last frame."""
    longest = max(len(episode) for episode in episodes)
    held = [episode[np.minimum(np.arange(longest), len(episode) - 1)] for episode in episodes]
    return np.concatenate(held, axis=2)


def _write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    _, height, width, _ = frames.shape
    # 4:2:0 shares colour between 2×2 pixels, so both sides must be even.
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1000), options={"preset": "veryfast"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
