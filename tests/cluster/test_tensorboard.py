import io
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actors.video import film
from cluster.tensorboard import TensorBoardLog
from tests.full_disk import small_disk


def _read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_numbers_are_logged_and_everything_else_is_left_out(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    record = {
        "kl": np.float32(0.5),
        "updates": 7,
        "note": "hello",
        "returns": [1.0],
        "best": None,
        "loss": float("nan"),
    }
    log.scalars(record, step=1000)
    log.close()
    read = _read(tmp_path)
    assert sorted(read.Tags()["scalars"]) == ["kl", "updates"]
    assert [(event.step, event.value) for event in read.Scalars("kl")] == [(1000, 0.5)]


def test_a_picture_reads_back_exactly(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    log = TensorBoardLog(tmp_path)
    log.image("reconstruction", picture, step=5)
    (event,) = _read(tmp_path).Images("reconstruction")
    assert (event.step, event.height, event.width) == (5, 8, 12)
    np.testing.assert_array_equal(imageio.imread(event.encoded_image_string), picture)
    log.close()


def test_a_video_is_a_repeating_gif_of_its_frames_at_its_speed(tmp_path: Path) -> None:
    frames = np.zeros((5, 16, 24, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[:, 4 * index : 4 * index + 4] = (255, 60 * index, 0)
    log = TensorBoardLog(tmp_path)
    log.video("evaluation", film([frames], fps=20).gif, step=9)
    log.close()
    (event,) = _read(tmp_path).Images("evaluation")
    assert (event.height, event.width) == (16, 24)
    gif = Image.open(io.BytesIO(event.encoded_image_string))
    assert gif.format == "GIF"
    assert gif.n_frames == 5
    assert gif.info["duration"] == 50
    assert gif.info["loop"] == 0
    decoded = imageio.imread(event.encoded_image_string, extension=".gif", index=None)
    assert np.abs(decoded.astype(int) - frames).max() < 8


def test_a_resumed_run_hides_the_steps_it_repeats(tmp_path: Path) -> None:
    first = TensorBoardLog(tmp_path)
    for step in (100, 200, 300):
        first.scalars({"return": step}, step)
    first.close()
    second = TensorBoardLog(tmp_path, resumed_at=200)
    second.scalars({"return": -1}, 250)
    second.close()
    assert [(event.step, event.value) for event in _read(tmp_path).Scalars("return")] == [(100, 100), (250, -1)]


def test_importing_it_loads_neither_tensorflow_nor_torch() -> None:
    program = (
        "import sys, cluster.tensorboard; print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_what_does_not_fit_on_a_full_disk_is_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        log = TensorBoardLog(disk.folder)
        log.scalars({"kl": 1.0}, step=1)
        disk.fill(leave=5000)
        log.image("reconstruction", noise, step=2)
        disk.free()
        log.scalars({"kl": 3.0}, step=3)
        log.close()
        read = _read(disk.folder)
        assert [event.step for event in read.Scalars("kl")] == [1, 3]
        assert read.Tags()["images"] == []
