"""The learner's batches, over Ray: drawn by the shards, and ready before they are needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle

from cluster.runtimes.assembly import Assembly, HostAssembly, Read
from cluster.runtimes.origin import Origin, Part, split_losses
from cluster.runtimes.patience import patiently
from cluster.runtimes.ray_shard import Place, Sample, file_number
from common.errors import NoWindowsError
from common.sequence import Rows
from learner.device_rows import OnDevice
from replay_service.first_look import FirstLook
from replay_service.parcel import Draw, Parcel, read_parcel, unpack
from replay_service.replay import split_batch
from replay_service.stores.lmdb import LmdbReader
from replay_service.stores.trouble import ChunkGoneError, StoreUnavailableError

PREFETCH = 2
EMPTY_SECONDS = 0.2
EMPTY_PATIENCE_SECONDS = 3.0
BATCH_SECONDS = 3.0


class _Request(NamedTuple):
    """So many windows asked of a shard, and its answer to come."""

    shard: int
    windows: int
    answer: ray.ObjectRef


class RayBatches(Iterator[Rows | OnDevice]):
    """Batches drawn from all shards in proportion to their windows.

    `PREFETCH` requests are under way at any time, and a thread puts the next batch together while the caller uses this
    one.

    A shard whose file lies on this host only says what it drew; the rows are read from the file. Another one sends the
    rows, or those of them that are not on the device yet.

    Args:
        shards: the replay's.
        assembly: puts batches together.
        action_size: A.
        seed: of each batch's division among the shards.
        direct: whether files on this host may be read here.
        patience_seconds: how long to wait for a store that is away.

    Attributes:
        origin: of the newest batch.
        about: see `Assembly.about`.
    """

    def __init__(
        self,
        shards: list[ActorHandle],
        *,
        assembly: Assembly,
        action_size: int,
        seed: int,
        direct: bool,
        patience_seconds: float,
    ) -> None:
        self.shards = shards
        self.patience_seconds = patience_seconds
        self.rng = np.random.default_rng(seed)
        self.assembly = assembly
        self.about = assembly.about
        self.action_size = action_size
        self.windows = [0] * len(shards)
        self.files = _FilesHere() if direct else None
        self.first_looks = [FirstLook() for _ in shards]
        self.methods: list[str] = []
        self.requests: list[list[_Request]] = []
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.coming: Future[tuple[Rows | OnDevice, Origin]] | None = None
        self.origin: Origin = []

    def __next__(self) -> Rows | OnDevice:
        """The next batch.

        Raises:
            NoWindowsError: there is none after `BATCH_SECONDS`: nothing can be drawn, or the store is away. The next
                call goes on waiting for the same one; in between the learner is free to say what it has learnt.
        """
        coming = self.coming or self.thread.submit(self._fill)
        if coming not in wait([coming], BATCH_SECONDS).done:
            self.coming = coming
            raise NoWindowsError(f"no batch within {BATCH_SECONDS:.0f} s")
        self.coming = None  # if this one failed, the next call tries again
        rows, self.origin = coming.result()
        self.coming = self.thread.submit(self._fill)
        return rows

    def close(self) -> None:
        """Waits for the batch that is being filled, so that no thread asks a Ray that has gone; closes the files."""
        self.thread.shutdown(cancel_futures=True)
        if self.files is not None:
            self.files.close()

    def prioritise(self, origin: Origin, losses: NDArray[np.float32]) -> None:
        """Tells the shards what was lost on each sequence of a batch, and does not wait until they have heard.

        Args:
            origin: of the batch.
            losses: (B,), in nats.
        """
        for part, lost in zip(origin, split_losses(origin, losses), strict=True):
            self.shards[part.shard].call.remote("prioritise", part.starts, lost)

    def _fill(self) -> tuple[Rows | OnDevice, Origin]:
        """The next batch."""
        assembly = self.assembly
        while len(self.requests) < PREFETCH:
            self.requests.append(self._request(assembly.batch_size))
        requests = self.requests.pop(0)
        self.requests.append(self._request(assembly.batch_size))
        assembly.begin()
        origin: Origin = []
        while requests:
            for request in requests:
                starts = self._take(request)
                if starts is not None:
                    origin.append(Part(request.shard, starts))
            requests = self._request(assembly.lacks) if assembly.lacks else []
        return assembly.end(), origin

    def _request(self, count: int) -> list[_Request]:
        """Asks for `count` windows, once there are any; raises NoWindowsError if there are none for too long."""
        if not self.methods:
            places: list[Place | None] = ray.get([shard.call.remote("where") for shard in self.shards])
            host = isinstance(self.assembly, HostAssembly)
            self.methods = ["sample" if host and not self._reader(place) else "draw" for place in places]
        began = time.monotonic()
        while not sum(self.windows):
            self.windows = ray.get([shard.call.remote("windows") for shard in self.shards])
            if not sum(self.windows):
                if time.monotonic() - began >= EMPTY_PATIENCE_SECONDS:
                    break
                time.sleep(EMPTY_SECONDS)
        return [
            _Request(shard, part, self._ask(shard, part))
            for shard, part in enumerate(split_batch(count, self.windows, self.rng))
            if part > 0
        ]

    def _ask(self, shard: int, count: int) -> ray.ObjectRef:
        answer: ray.ObjectRef = self.shards[shard].call.remote(self.methods[shard], count)
        return answer

    def _take(self, request: _Request) -> NDArray[np.int64] | None:
        """Adds what was asked of a shard to the batch.

        Returns:
            where the windows start; None if they cannot be had and must be asked for anew.
        """
        sample = self._answered(request)
        self.windows[request.shard] = sample.windows
        match sample.part:
            case Parcel() as parcel:
                assert isinstance(self.assembly, HostAssembly)
                self.assembly.add_parcel(parcel)
                return parcel.starts
            case Draw() as draw:
                read = self._read_by(request.shard, sample.place)
                if read is None:  # the shard lives elsewhere by now
                    self.methods[request.shard] = "sample"
                    return None
                try:
                    self.assembly.add(request.shard, draw, read)
                except ChunkGoneError:  # evicted since it was drawn
                    return None
                return draw.starts
        return None

    def _read_by(self, shard: int, place: Place | None) -> Read | None:
        """How a shard's rows are read: from its file, or through it where only few are; None: it must send parcels."""
        if (reader := self._reader(place)) is not None:
            return partial(self._read_file, reader, self.first_looks[shard])
        return None if isinstance(self.assembly, HostAssembly) else partial(self._read_through, shard)

    def _read_file(self, reader: LmdbReader, first_look: FirstLook, draw: Draw, out: Rows) -> None:
        with reader.read(draw.sequences) as chunks:
            first_look.check(draw, chunks)
            unpack(read_parcel(draw, chunks, self.action_size), out)

    def _read_through(self, shard: int, draw: Draw, out: Rows) -> None:
        def ask() -> Parcel:
            return cast("Parcel", ray.get(self.shards[shard].call.remote("read", draw)))

        unpack(patiently(ask, self.patience_seconds), out)

    def _answered(self, request: _Request) -> Sample:
        """What a shard answers; one whose store is away is asked again."""
        try:
            return cast("Sample", ray.get(request.answer))
        except StoreUnavailableError:
            return cast(
                "Sample", patiently(lambda: ray.get(self._ask(request.shard, request.windows)), self.patience_seconds)
            )

    def _reader(self, place: Place | None) -> LmdbReader | None:
        return self.files.reader(place) if self.files and place else None


class _FilesHere:
    """Readers of those shards' files that lie on this host."""

    def __init__(self) -> None:
        self.node = ray.get_runtime_context().get_node_id()
        self.readers: dict[Place, LmdbReader] = {}

    def reader(self, place: Place) -> LmdbReader | None:
        """Reads the file at a place; None if it cannot be read from here."""
        if place not in self.readers:
            if place.node != self.node or not self._is_visible(place):
                return None
            for other in [known for known in self.readers if known.folder == place.folder]:
                self.readers.pop(other).close()
            self.readers[place] = LmdbReader(Path(place.folder))
        return self.readers[place]

    def close(self) -> None:
        """Closes them all."""
        for reader in self.readers.values():
            reader.close()
        self.readers.clear()

    def _is_visible(self, place: Place) -> bool:
        try:
            return file_number(Path(place.folder)) == place.file
        except OSError:
            return False
