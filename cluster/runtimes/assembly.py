"""Where batches are put together, part by part: in the host's memory, or in the device's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.sequence import ROW_FIELDS, Rows
from learner.device_rows import Delivery, DeviceRows, OnDevice
from learner.feed import host_memory, host_numbers
from replay_service.parcel import Draw, Parcel, unpack
from replay_service.residence import Residence

MEMORIES = 3

Read = Callable[[Draw, Rows], None]
"""Fills rows (B, L) with what was drawn. Whatever it raises, nothing has come of it."""


class Assembly(Protocol):
    """Puts one batch together after another. The memory of one is used again `MEMORIES` − 1 batches later."""

    batch_size: int
    """B."""
    about: str
    """One line for the run's log; nothing where there is nothing to say."""

    def begin(self) -> None:
        """A new batch; one that was not ended is given up."""

    @property
    def lacks(self) -> int:
        """Sequences that the batch still needs."""

    def add(self, shard: int, draw: Draw, read: Read) -> None:
        """Adds the windows that a shard has drawn; after an error of `read` the batch is what it was before."""

    def end(self) -> Rows | OnDevice:
        """The batch."""


class HostAssembly:
    """Implements `Assembly` in the host's memory, from which a device copies whole batches.

    Args:
        memory: makes the memory of one batch, (B, L) rows.
        about: see `Assembly.about`.
    """

    def __init__(self, memory: Callable[[], Rows], about: str = "") -> None:
        self.about = about
        self.memories = [memory() for _ in range(MEMORIES)]
        self.batch_size = len(self.memories[0])
        self.filled = 0

    def begin(self) -> None:
        """See `Assembly.begin`."""
        self.filled = 0

    @property
    def lacks(self) -> int:
        """See `Assembly.lacks`."""
        return self.batch_size - self.filled

    def add(self, shard: int, draw: Draw, read: Read) -> None:
        """See `Assembly.add`."""
        read(draw, self._room(draw.batch_size))
        self.filled += draw.batch_size

    def add_parcel(self, parcel: Parcel) -> None:
        """Adds the windows of a parcel, whoever has read it."""
        windows, _ = parcel.leading
        unpack(parcel, self._room(windows))
        self.filled += windows

    def end(self) -> Rows:
        """See `Assembly.end`."""
        self.memories.append(self.memories.pop(0))
        return self.memories[-1]

    def _room(self, windows: int) -> Rows:
        return self.memories[0][self.filled : self.filled + windows]


class Staging(NamedTuple):
    """Memory of one batch that the device copies from.

    Attributes:
        new: (B · L,) rows.
        places: int64 (B · L,).
        wanted: int64 (B, L).
    """

    new: Rows
    places: NDArray[np.int64]
    wanted: NDArray[np.int64]


class DeviceAssembly:
    """Implements `Assembly` for rows that stay on the device: only those that are not there yet are read and copied.

    Args:
        rows: the device's; each shard has an equal part of them.
        per_shard: how many; B · L at least.
        shards: S.
        leading: (B, L).
        action_size: A.
        about: see `Assembly.about`.
    """

    def __init__(
        self,
        rows: DeviceRows,
        per_shard: int,
        shards: int,
        leading: tuple[int, int],
        action_size: int,
        about: str = "",
    ) -> None:
        self.about = about
        self.rows = rows
        self.batch_size, length = leading
        self.residences = [Residence(shard * per_shard, per_shard) for shard in range(shards)]
        device = rows.device.type
        self.stagings = [
            Staging(
                host_memory((self.batch_size * length,), action_size, device),
                host_numbers((self.batch_size * length,), device),
                host_numbers(leading, device),
            )
            for _ in range(MEMORIES)
        ]
        self.deliveries: list[Delivery] = []
        self.brought = self.filled = 0

    def begin(self) -> None:
        """See `Assembly.begin`; the rows of a batch that is given up never reach the device."""
        if self.deliveries:
            for residence in self.residences:
                residence.clear()
        self.deliveries = []
        self.brought = self.filled = 0

    @property
    def lacks(self) -> int:
        """See `Assembly.lacks`."""
        return self.batch_size - self.filled

    def add(self, shard: int, draw: Draw, read: Read) -> None:
        """See `Assembly.add`."""
        staging, plan = self.stagings[0], self.residences[shard].plan(draw)
        new = slice(self.brought, self.brought + len(plan.places))
        sequences = slice(self.filled, self.filled + draw.batch_size)
        if len(plan.places):
            read(plan.missing, _one_window(staging.new[new]))
        self.residences[shard].keep(plan)
        staging.places[new], staging.wanted[sequences] = plan.places, plan.wanted
        self.deliveries.append(Delivery(staging.new[new], staging.places[new], staging.wanted[sequences]))
        self.brought, self.filled = new.stop, sequences.stop

    def end(self) -> OnDevice:
        """See `Assembly.end`."""
        self.stagings.append(self.stagings.pop(0))
        batch, self.deliveries = OnDevice(self.rows, self.deliveries), []
        return batch


def _one_window(rows: Rows) -> Rows:
    """Rows (n,) as (1, n), in the same memory."""
    return Rows(*(getattr(rows, name)[None] for name in ROW_FIELDS))
