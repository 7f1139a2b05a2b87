"""The learner's batches where the replay lives in the same process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cluster.runtimes.assembly import Assembly
from cluster.runtimes.origin import Origin, Part, split_losses
from cluster.runtimes.patience import patiently
from common.sequence import Rows
from learner.device_rows import OnDevice
from replay_service.parcel import Draw, unpack
from replay_service.replay import Replay, split_batch
from replay_service.stores.trouble import ChunkGoneError


class InlineBatches(Iterator[Rows | OnDevice]):
    """Batches drawn from all shards in proportion to their windows.

    Args:
        shards: the replay's.
        assembly: puts batches together.
        seed: of each batch's division among the shards.
        patience_seconds: how long to wait for a store that is away.

    Attributes:
        origin: of the newest batch.
        about: see `Assembly.about`.
    """

    def __init__(self, shards: Sequence[Replay], assembly: Assembly, seed: int, patience_seconds: float) -> None:
        self.shards = shards
        self.assembly = assembly
        self.about = assembly.about
        self.random = np.random.default_rng(seed)
        self.patience_seconds = patience_seconds
        self.origin: Origin = []

    def __next__(self) -> Rows | OnDevice:
        windows = [shard.windows for shard in self.shards]
        self.assembly.begin()
        origin: Origin = []
        for number, count in enumerate(split_batch(self.assembly.batch_size, windows, self.random)):
            if count:
                origin.append(Part(number, patiently(partial(self._add, number, count), self.patience_seconds)))
        self.origin = origin
        return self.assembly.end()

    def prioritise(self, origin: Origin, losses: NDArray[np.float32]) -> None:
        """Tells the shards what was lost on each sequence of a batch.

        Args:
            origin: of the batch.
            losses: (B,), in nats.
        """
        for part, lost in zip(origin, split_losses(origin, losses), strict=True):
            self.shards[part.shard].prioritise(part.starts, lost)

    def _add(self, number: int, count: int) -> NDArray[np.int64]:
        """Adds windows drawn from a shard; the chunks in which they start."""
        shard = self.shards[number]
        while True:
            draw = shard.draw(count)
            try:
                self.assembly.add(number, draw, partial(_read, shard))
            except ChunkGoneError:
                continue  # the store was out of reach since, and what it holds has been taken up anew
            return draw.starts


def _read(shard: Replay, draw: Draw, out: Rows) -> None:
    with shard.read(draw) as parcel:
        unpack(parcel, out)
