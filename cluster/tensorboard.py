"""Scalars, pictures and videos for TensorBoard, written without TensorFlow and without torch.

They are for people, and the run has all of them elsewhere: on a full disk they are left out.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from common.room import is_full


class TensorBoardLog:
    """Appends to an event file in a folder; the step of everything is environment steps.

    Args:
        folder: TensorBoard's log folder, made if missing; a new event file is made in it.
        resumed_at: the step a resumed run continues from: TensorBoard then hides what an earlier life of the run wrote
            at this step and later, instead of drawing a line back.
    """

    def __init__(self, folder: Path | str, resumed_at: int | None = None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(Path(folder) / name, "wb", buffering=0)  # noqa: SIM115  # open as long as the run
        self._add(Event(file_version="brain.Event:2"))
        if resumed_at is not None:
            self._add(Event(step=resumed_at, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, record: Mapping[str, Any], step: int) -> None:
        """Adds every finite number of the record under its key; texts, lists and nulls are left out."""
        values = [
            Summary.Value(tag=key, simple_value=float(value))
            for key, value in record.items()
            if isinstance(value, Real) and math.isfinite(value)
        ]
        self._add(Event(step=step, summary=Summary(value=values)))

    def image(self, tag: str, image: NDArray[np.uint8], step: int) -> None:
        """Adds one picture, uint8 (H, W, 3)."""
        self._add_image(tag, image.shape[:2], imageio.imwrite("<bytes>", image, extension=".png"), step)

    def video(self, tag: str, gif: bytes, step: int) -> None:
        """Adds a GIF to the Images tab."""
        width, height = struct.unpack_from("<HH", gif, len("GIF89a"))
        self._add_image(tag, (height, width), gif, step)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add_image(self, tag: str, size: tuple[int, ...], encoded: bytes, step: int) -> None:
        height, width = size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        record, end = _framed(event.SerializeToString()), self._file.tell()
        try:
            whole = self._file.write(record) == len(record)
        except OSError as error:
            if not is_full(error):
                raise
            whole = False
        if not whole:  # what follows a torn record would not be read
            self._file.truncate(end)
            self._file.seek(end)


def _framed(data: bytes) -> bytes:
    """A record of an event file: length, its checksum, the data, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))
