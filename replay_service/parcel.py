"""From a draw to a batch: which rows of which chunks, then those rows as they lie in the store, then the batch itself.

```
Replay.draw ──▶ Draw ──▶ read_parcel ──▶ Parcel ──▶ unpack ──▶ Rows (B, L)
                numbers                  views, images still where and as they lie
```

Each step may be done in another process: a draw is small, and a parcel is what has to travel when the store is
elsewhere. Images are copied, or decompressed, only once: into the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.sequence import IMAGE_SHAPE, Rows
from replay_service.codec import BytesLike, Layout, unpack_images, views

_SMALL_FIELDS = ("action", "reward", "discount", "is_first")


class Draw(NamedTuple):
    """Windows that were drawn.

    Attributes:
        batch_size: B.
        length: L.
        pieces: int64 (n, 5), window by window, each row: rows `start` to `stop` of chunk number `chunk` below are rows
            `row` and following of window `window`, as (window, row, chunk, start, stop).
        sequences: the chunks' sequence numbers, each once.
        layouts: int64 (m, 3), the `codec.Layout` of each of them.
        edition: of what the shard holds: in another one the same sequence numbers may be other chunks.
    """

    batch_size: int
    length: int
    pieces: NDArray[np.int64]
    sequences: list[int]
    layouts: NDArray[np.int64]
    edition: str

    @property
    def starts(self) -> NDArray[np.int64]:
        """Sequence number of the chunk in which each window starts, int64 (B,)."""
        return np.array(self.sequences, np.int64)[self.pieces[self.pieces[:, 1] == 0, 2]]


@dataclass(frozen=True)
class Parcel:
    """The rows of a draw.

    Attributes:
        pieces: int64 (n, 5), each row: rows `start` to `stop` of images `source` are rows `row` and following of window
            `window`, as (window, row, source, start, stop).
        sources: images: uint8 (T, 64, 64, 3), or an LZ4 block of them, uint8 (packed,).
        rows: int64 (m,), T of each source.
        starts: int64 (B,), sequence number of the chunk in which each window starts.
        action: float32 (B, L, A).
        reward: float32 (B, L).
        discount: float32 (B, L).
        is_first: bool (B, L).
    """

    pieces: NDArray[np.int64]
    sources: list[NDArray[np.uint8]]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    is_first: NDArray[np.bool_]

    @property
    def leading(self) -> tuple[int, int]:
        """(B, L)."""
        batch_size, length = self.reward.shape
        return batch_size, length


def read_parcel(draw: Draw, chunks: Sequence[BytesLike], action_size: int) -> Parcel:
    """The rows of a draw from their chunks' bytes; images are views of these.

    Args:
        draw: what was drawn.
        chunks: the encodings of `draw.sequences`.
        action_size: A.
    """
    leading = (draw.batch_size, draw.length)
    small: list[NDArray[Any]] = [
        np.empty((*leading, action_size), np.float32),
        np.empty(leading, np.float32),
        np.empty(leading, np.float32),
        np.empty(leading, np.bool_),
    ]
    layouts = [Layout(*layout) for layout in draw.layouts.tolist()]
    arrays = [views(chunk, layout, action_size) for chunk, layout in zip(chunks, layouts, strict=True)]
    pieces = draw.pieces.copy()
    sources: list[NDArray[np.uint8]] = []
    source_rows: list[int] = []
    packed_places: dict[int, int] = {}
    for place, (window, row, chunk, start, stop) in enumerate(draw.pieces.tolist()):
        image, *others = arrays[chunk]
        for target, values in zip(small, others, strict=True):
            target[window, row : row + stop - start] = values[start:stop]
        if layouts[chunk].packed:
            source = packed_places.setdefault(chunk, len(sources))
            whole, rows = image, layouts[chunk].rows
        else:  # no more of it than the piece needs
            source, whole, rows = len(sources), image[start:stop], stop - start
            pieces[place, 3:] = 0, rows
        if source == len(sources):
            sources.append(whole)
            source_rows.append(rows)
        pieces[place, 2] = source
    return Parcel(pieces, sources, np.array(source_rows, np.int64), draw.starts, *small)


def unpack(parcel: Parcel, out: Rows) -> Rows:
    """Copies a parcel's rows into a batch.

    Args:
        parcel: the rows.
        out: (B, L) rows to fill; memory that was used before costs no page faults.

    Raises:
        CodecError: compressed images are damaged.
    """
    for name in _SMALL_FIELDS:
        np.copyto(getattr(out, name), getattr(parcel, name))
    scratch = np.empty((max(parcel.rows, default=0), *IMAGE_SHAPE), np.uint8)
    unpacked = -1
    rows = parcel.rows.tolist()
    for window, row, source, start, stop in parcel.pieces.tolist():
        target, images = out.image[window, row : row + stop - start], parcel.sources[source]
        if images.ndim > 1:
            target[...] = images[start:stop]
        elif stop - start == rows[source]:
            unpack_images(images, target)
        else:
            if unpacked != source:
                unpack_images(images, scratch[: rows[source]])
                unpacked = source
            target[...] = scratch[start:stop]
    return out
