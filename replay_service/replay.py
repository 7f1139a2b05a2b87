"""The replay role: chunks go in, batches of windows come out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.config import Config, ReplayConfig
from common.errors import UserError
from common.memory import resident_bytes
from common.reports import ReplayReport
from common.seeding import derive_seed
from common.sequence import ROW_FIELDS, Rows
from replay_service.codec import BytesLike, CodecError, Header, decode, read_header, views
from replay_service.limiter import first_window_env_steps
from replay_service.stores import Store, open_store
from replay_service.windows import WindowIndex


class NoWindowsError(Exception):
    """Nothing can be drawn yet: no episode is long enough, or, where whole episodes are drawn, none has finished."""


class _Held(NamedTuple):
    """Where a stored chunk's payload starts in its bytes, and how much it holds."""

    offset: int
    rows: int
    env_steps: int


class Replay:
    """One shard of the replay service. Calls come one at a time.

    Args:
        config: capacity, shards and sampling.
        store: keeps the chunks; what it holds already is taken up.
        action_size: A of every chunk.
        batch_length: L, rows a window.
        action_repeat: environment steps a row.
        seed: of the draws.
    """

    def __init__(
        self,
        config: ReplayConfig,
        *,
        store: Store,
        action_size: int,
        batch_length: int,
        action_repeat: int,
        seed: int,
    ) -> None:
        self._store = store
        self._action_size = action_size
        self._batch_length = batch_length
        self._action_repeat = action_repeat
        self._capacity = config.capacity // config.shards
        self._rng = np.random.default_rng(seed)
        self._index = WindowIndex(batch_length, config.sampling)
        self._held: OrderedDict[int, _Held] = OrderedDict()  # by sequence number, oldest first
        self._env_steps = 0
        self._next_sequence = 0
        self._marks = store.marks()
        for sequence, header in store.scan():
            self._enter(sequence, header)

    @property
    def windows(self) -> int:
        """Windows that can be drawn now; the shards share a batch in proportion to them."""
        return self._index.drawable_windows

    def insert(self, data: BytesLike) -> int:
        """Stores an encoded chunk unless it was inserted before, and evicts the oldest ones above the capacity.

        Returning is the acknowledgement. The chunks of one stream must come in order, each not before its predecessor
        was acknowledged (or behind it in a channel that keeps order): one that comes after a later chunk of its stream
        counts as inserted before.

        Args:
            data: what `codec.encode` returned.

        Returns:
            environment steps newly stored; 0 for a chunk that was inserted before, even one evicted long ago.

        Raises:
            CodecError: the bytes are no chunk, or its actions have another size.
        """
        header = read_header(data)
        decode(data)  # holds the payload against its checksum
        if header.action_size != self._action_size:
            raise CodecError(
                f"a chunk with actions of size {header.action_size}; this replay's are {self._action_size}"
            )
        mark = (header.key.episode, header.key.index)
        if mark <= self._marks.get(header.key.stream, (-1, -1)):
            return 0
        env_steps = header.env_steps(self._action_repeat)
        evict = self._surplus(self._env_steps + env_steps - self._capacity)
        self._store.append(self._next_sequence, header.key, data, env_steps, evict)
        self._marks[header.key.stream] = mark
        for sequence in evict:
            self._env_steps -= self._held.pop(sequence).env_steps
            self._index.evict()
        self._enter(self._next_sequence, header)
        return env_steps

    def sample(self, batch_size: int, out: Rows | None = None) -> Rows:
        """Draws windows independently, with replacement, and copies them into one batch.

        Args:
            batch_size: B, windows drawn.
            out: (B, L) rows to fill; memory used before costs no page faults. None makes new ones.

        Returns:
            rows of leading shape (B, L): `out` where it was given.

        Raises:
            NoWindowsError: nothing can be drawn yet.
        """
        if self.windows == 0:
            raise NoWindowsError(f"no episode with {self._batch_length} rows can be drawn yet")
        leading = (batch_size, self._batch_length)
        if out is None:
            out = Rows.empty(leading, self._action_size)
        elif out.action.shape != (*leading, self._action_size):
            raise ValueError(f"out has actions of shape {out.action.shape}, not {(*leading, self._action_size)}")
        pieces = self._index.draw(batch_size, self._rng)
        sequences = list({piece.sequence for piece in pieces})
        targets = [getattr(out, name) for name in ROW_FIELDS]
        with self._store.read(sequences) as buffers:
            chunks = {sequence: self._arrays(sequence, data) for sequence, data in zip(sequences, buffers, strict=True)}
            for window, row, sequence, start, stop in pieces:
                for target, source in zip(targets, chunks[sequence], strict=True):
                    target[window, row : row + stop - start] = source[start:stop]
        return out

    def report(self) -> ReplayReport:
        """What the shard holds now."""
        return ReplayReport(
            rows=self._index.rows,
            env_steps=self._env_steps,
            inserted_env_steps=self._store.inserted_env_steps,
            chunks=len(self._held),
            episodes=self._index.episodes,
            windows=self.windows,
            short_fragments=self._index.short_fragments,
            bytes=self._store.bytes,
            resident_bytes=resident_bytes(),
        )

    def random_state(self) -> dict[str, Any]:
        """The generator's state, in values that JSON keeps exactly."""
        return dict(self._rng.bit_generator.state)

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Goes on drawing where `random_state` was taken; the same chunks held, the same windows are drawn."""
        self._rng.bit_generator.state = dict(state)

    def close(self) -> None:
        """Closes the store."""
        self._store.close()

    def _enter(self, sequence: int, header: Header) -> None:
        held = _Held(header.offset, header.rows, header.env_steps(self._action_repeat))
        self._held[sequence] = held
        self._index.append(sequence, header.key, header.rows, header.is_last)
        self._env_steps += held.env_steps
        self._next_sequence = sequence + 1

    def _surplus(self, env_steps: int) -> list[int]:
        """The oldest chunks that together hold at least this many environment steps, as few as possible."""
        surplus: list[int] = []
        for sequence, held in self._held.items():
            if env_steps <= 0:
                break
            surplus.append(sequence)
            env_steps -= held.env_steps
        return surplus

    def _arrays(self, sequence: int, data: BytesLike) -> list[NDArray[Any]]:
        held = self._held[sequence]
        rows = views(data, held.offset, held.rows, self._action_size)
        return [getattr(rows, name) for name in ROW_FIELDS]


def open_replay(config: Config, folder: Path | None, shard: int, action_size: int) -> Replay:
    """Opens a shard of a run's replay with the store, sizes and seed that the configuration names.

    Args:
        config: the run's configuration.
        folder: the run folder's `replay/`; None where there is no run folder.
        shard: which of `config.replay.shards` this is.
        action_size: A.

    Raises:
        UserError: the store cannot be opened, or nothing could ever be drawn from so small a capacity.
    """
    needed = first_window_env_steps(config)
    if config.replay.capacity // config.replay.shards < needed:
        raise UserError(
            f"--replay.capacity {config.replay.capacity} over {config.replay.shards} shards may never hold a whole "
            f"window of {config.environments} environments; give at least {needed * config.replay.shards}"
        )
    return Replay(
        config.replay,
        store=open_store(config, folder, shard, action_size),
        action_size=action_size,
        batch_length=config.training.batch_length,
        action_repeat=config.environment.action_repeat,
        seed=derive_seed(config.seed, "replay", shard),
    )


def split_batch(batch_size: int, windows: Sequence[int], rng: np.random.Generator) -> list[int]:
    """How many windows of a batch each shard draws, so that over all shards every window is alike.

    Args:
        batch_size: B.
        windows: `Replay.windows` of each shard.
        rng: draws the shard of each window.

    Returns:
        a count a shard, together B; 0 for a shard without windows.

    Raises:
        NoWindowsError: no shard has a window.
    """
    ends = np.cumsum(windows)
    if ends[-1] == 0:
        raise NoWindowsError("no shard holds a window that can be drawn yet")
    shard = np.searchsorted(ends, rng.integers(ends[-1], size=batch_size), side="right")
    return np.bincount(shard, minlength=len(ends)).tolist()
