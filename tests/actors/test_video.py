"""Videos that players can open."""

from __future__ import annotations

from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import pytest

from actors.video import film as encode_film
from actors.video import side_by_side, write_video
from common.errors import UserError


def film(length: int = 12, size: int = 64, value: int = 0) -> np.ndarray:
    """A white square that walks to the right."""
    frames = np.full((length, size, size, 3), value, np.uint8)
    for t in range(length):
        frames[t, 20:30, 2 * t : 2 * t + 10] = 255
    return frames


def test_mp4_is_h264_with_every_frame_enlarged(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", film(), fps=25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 25
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert frames.shape == (12, 256, 256, 3)
    assert np.abs(frames[:, ::4, ::4].astype(int) - film()).mean() < 6


def test_mp4_of_odd_size_and_uneven_rate_is_written(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", film(size=63), fps=12.5, scale=1)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (64, 64, 12.5)


def test_gif_holds_every_frame_enlarged(tmp_path: Path) -> None:
    write_video(tmp_path / "a.gif", film(), fps=20, scale=2)
    frames = imageio.imread(tmp_path / "a.gif", index=None)
    assert frames.shape == (12, 128, 128, 3)
    assert np.abs(frames[:, ::2, ::2].astype(int) - film()).mean() < 1
    metadata = imageio.immeta(tmp_path / "a.gif")
    assert (metadata["duration"], metadata["loop"]) == (50, 0)


def test_a_film_shows_all_episodes_and_the_first_of_them_alone() -> None:
    both = encode_film([film(5), film(9)], fps=25)
    assert imageio.imread(both.mp4, extension=".mp4", plugin="pyav").shape == (9, 256, 512, 3)
    assert imageio.imread(both.gif, extension=".gif", index=None).shape == (5, 64, 64, 3)


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp4.txt"])
def test_other_suffixes_are_told_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"videos end in \.mp4 or \.gif, not"):
        write_video(tmp_path / name, film(), fps=25)
    assert list(tmp_path.iterdir()) == []


def test_episodes_side_by_side_hold_their_last_frame() -> None:
    row = side_by_side([film(5, value=0), film(9, value=50)])
    assert row.shape == (9, 64, 128, 3)
    assert np.array_equal(row[:5, :, :64], film(5))
    assert all(np.array_equal(row[t, :, :64], film(5)[-1]) for t in range(5, 9))
    assert np.array_equal(row[:, :, 64:], film(9, value=50))
