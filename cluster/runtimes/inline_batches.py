"""The learner's batches where the replay lives in the same process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cluster.runtimes.origin import Origin, Part, split_losses
from cluster.runtimes.patience import patiently
from common.sequence import Rows
from replay_service.parcel import unpack
from replay_service.replay import Replay, split_batch


class InlineBatches(Iterator[Rows]):
    """Batches drawn from all shards in proportion to their windows.

    Args:
        shards: the replay's.
        leading: (B, L).
        action_size: A.
        seed: of each batch's division among the shards.
        patience_seconds: how long to wait for a store that is away.

    Attributes:
        origin: of the newest batch.
    """

    def __init__(
        self, shards: Sequence[Replay], leading: tuple[int, int], action_size: int, seed: int, patience_seconds: float
    ) -> None:
        self.shards = shards
        self.leading = leading
        self.action_size = action_size
        self.random = np.random.default_rng(seed)
        self.patience_seconds = patience_seconds
        self.origin: Origin = []

    def __next__(self) -> Rows:
        windows = [shard.windows for shard in self.shards]
        rows = Rows.empty(self.leading, self.action_size)
        origin: Origin = []
        filled = 0
        for number, count in enumerate(split_batch(len(rows), windows, self.random)):
            if count:
                fill = partial(_fill, self.shards[number], rows[filled : filled + count])
                origin.append(Part(number, patiently(fill, self.patience_seconds)))
                filled += count
        self.origin = origin
        return rows

    def prioritise(self, origin: Origin, losses: NDArray[np.float32]) -> None:
        """Tells the shards what was lost on each sequence of a batch.

        Args:
            origin: of the batch.
            losses: (B,), in nats.
        """
        for part, lost in zip(origin, split_losses(origin, losses), strict=True):
            self.shards[part.shard].prioritise(part.starts, lost)


def _fill(shard: Replay, rows: Rows) -> NDArray[np.int64]:
    """Fills rows (n, L) with drawn windows; the chunks in which they start."""
    with shard.drawn(len(rows)) as parcel:
        unpack(parcel, rows)
        return parcel.starts
