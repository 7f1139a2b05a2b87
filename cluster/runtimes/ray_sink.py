"""A collector's way to its replay shard, over Ray."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle

from cluster.runtimes.patience import patiently
from common.sequence import Chunk, StreamKey
from replay_service.codec import encode
from replay_service.stores.trouble import StoreUnavailableError

GROUP_BYTES = 3 * 2**20
CALLS = 2


class _Underway(NamedTuple):
    """A call that is under way, and what it inserts."""

    answer: ray.ObjectRef
    streams: set[StreamKey]
    chunks: list[NDArray[np.uint8]]


class RaySink:
    """Streams chunks to one replay shard; acknowledgements are collected by `flush`.

    `CALLS` calls are under way at a time, and what comes meanwhile travels together in the next one: the busier the
    shard, the more chunks share one flush of its disk. A stream's chunks are never in two calls at once: a shard that
    restarts gets its calls again, in an order that Ray does not promise, and a stream's chunks must arrive in theirs.

    Args:
        shard: where the chunks go.
        pack: whether images travel, and are stored, compressed.
        patience_seconds: how long to wait for a store that is away.
    """

    def __init__(self, shard: ActorHandle, pack: bool, patience_seconds: float) -> None:
        self.shard = shard
        self.pack = pack
        self.patience_seconds = patience_seconds
        self.waiting: list[tuple[StreamKey, NDArray[np.uint8]]] = []
        self.waiting_bytes = 0
        self.underway: list[_Underway] = []
        self.stored = 0

    def insert(self, chunk: Chunk) -> None:
        """Sends the chunk, now or with a later call; waits only while too much is waiting already."""
        data = encode(chunk, pack=self.pack)
        self.waiting.append((chunk.key.stream, data))
        self.waiting_bytes += len(data)
        if len(self.underway) < CALLS:
            self._send()
        while self.waiting_bytes > GROUP_BYTES:
            self._acknowledge()
            self._send()

    def flush(self) -> int:
        """Waits for every acknowledgement; returns the environment steps newly stored since the last flush."""
        while self.waiting or self.underway:
            if self.underway:
                self._acknowledge()
            self._send()
        stored, self.stored = self.stored, 0
        return stored

    def _send(self) -> None:
        """Sends all that waits, except what a call under way may still be overtaken by."""
        held_back = {stream for call in self.underway for stream in call.streams}
        going = [(stream, data) for stream, data in self.waiting if stream not in held_back]
        if not going:
            return
        self.waiting = [(stream, data) for stream, data in self.waiting if stream in held_back]
        self.waiting_bytes = sum(len(data) for _, data in self.waiting)
        chunks = [data for _, data in going]
        # Ray sends it again if the shard restarts: the chunks' keys make that safe.
        answer: ray.ObjectRef = self.shard.call.remote("insert", chunks)
        self.underway.append(_Underway(answer, {stream for stream, _ in going}, chunks))

    def _acknowledge(self) -> None:
        """Waits until the oldest call's chunks are stored; a store that is away gets them again when it is back."""
        answer, _, chunks = self.underway.pop(0)
        try:
            self.stored += cast("int", ray.get(answer))
        except StoreUnavailableError:
            shard = self.shard
            self.stored += cast(
                "int", patiently(lambda: ray.get(shard.call.remote("insert", chunks)), self.patience_seconds)
            )
