"""The replay role: chunks go in, batches of windows come out."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.config import Config, ReplayConfig
from common.errors import NoWindowsError, UserError
from common.reports import ReplayReport
from common.seeding import derive_seed
from common.sequence import ChunkKey, Rows, StreamKey
from common.usage import usage
from replay_service.codec import BytesLike, CodecError, Header, Layout, check
from replay_service.first_look import FirstLook
from replay_service.limiter import first_window_env_steps
from replay_service.parcel import Draw, Parcel, read_parcel, unpack
from replay_service.samplers import SAMPLERS
from replay_service.stores import open_store
from replay_service.stores.interface import Entry, Mark, Store
from replay_service.stores.trouble import ChunkGoneError, StoreChangedError, StoreUnavailableError
from replay_service.windows import WindowIndex

_Result = TypeVar("_Result")
_Arrived = tuple[Header, BytesLike]
_NO_MARK: Mark = (-1, -1)


class _Held(NamedTuple):
    """Where a stored chunk's arrays lie in its bytes, and how much it holds."""

    layout: Layout
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
        self._config = config
        self._trouble = ""
        self._process = secrets.token_hex(8)
        self._inserted_chunks = 0
        self._sampled_sequences = 0
        self._take_up()

    @property
    def windows(self) -> int:
        """Windows that can be drawn now; the shards share a batch in proportion to them."""
        return self._index.drawable_windows

    def insert(self, *chunks: BytesLike) -> int:
        """Stores encoded chunks unless they were inserted before, and evicts the oldest ones above the capacity.

        Returning is the acknowledgement of all of them. The chunks of one stream must come in order, each not before
        its predecessor was acknowledged (or behind it in a channel that keeps order): one that comes after a later
        chunk of its stream counts as inserted before.

        Args:
            chunks: what `codec.encode` returned; those given together are stored together, which is cheaper.

        Returns:
            environment steps newly stored; 0 for a chunk that was inserted before, even one evicted long ago.

        Raises:
            CodecError: the bytes of one are no chunk, or its actions have another size; none was stored.
            StoreUnavailableError: the store's server takes nothing now; inserting again is safe.
        """
        arrived = [(check(data), data) for data in chunks]
        for header, _ in arrived:
            if header.action_size != self._action_size:
                raise CodecError(
                    f"a chunk with actions of size {header.action_size}; this replay's are {self._action_size}"
                )
        return sum(self._with_store(partial(self._append, group)) for group in self._groups(arrived))

    def takes(self, key: ChunkKey) -> bool:
        """Whether a chunk of this name would be stored: neither it nor a later one of its stream ever was."""
        return (key.episode, key.index) > self._marks.get(key.stream, _NO_MARK)

    def draw(self, batch_size: int) -> Draw:
        """Draws windows independently, with replacement.

        Args:
            batch_size: B, windows drawn.

        Returns:
            which rows of which chunks they are; until the next `insert`, all of these are there.

        Raises:
            NoWindowsError: nothing can be drawn yet.
        """
        if self.windows == 0:
            raise NoWindowsError(f"no episode with {self._batch_length} rows can be drawn yet")
        pieces = self._index.draw(batch_size, self._rng)
        self._sampled_sequences += batch_size
        chunks, pieces[:, 2] = np.unique(pieces[:, 2], return_inverse=True)
        sequences = chunks.tolist()
        layouts = np.array([self._held[sequence].layout for sequence in sequences], np.int64)
        return Draw(batch_size, self._batch_length, pieces, sequences, layouts, self._edition)

    @contextmanager
    def read(self, draw: Draw) -> Iterator[Parcel]:
        """Reads windows that were drawn before; the rows lie in the store until the block ends.

        Raises:
            ChunkGoneError: not all of them are there any more.
            StoreUnavailableError: the store's server gives nothing now.
            CodecError: a chunk was damaged since it was stored.
        """
        with ExitStack() as reading:
            yield self._with_store(lambda: self._read(draw, reading))

    @contextmanager
    def drawn(self, batch_size: int) -> Iterator[Parcel]:
        """Draws windows, as `draw` does, and reads them; the rows lie in the store until the block ends.

        Raises:
            NoWindowsError: nothing can be drawn yet.
            StoreUnavailableError: the store's server gives nothing now.
            CodecError: a chunk was damaged since it was stored.
        """
        with ExitStack() as reading:
            yield self._with_store(lambda: self._read(self.draw(batch_size), reading))

    def sample(self, batch_size: int, out: Rows | None = None) -> Rows:
        """Draws windows, as `draw` does, and copies them into one batch.

        Args:
            batch_size: B, windows drawn.
            out: (B, L) rows to fill; memory used before costs no page faults. None makes new ones.

        Returns:
            rows of leading shape (B, L): `out` where it was given.

        Raises:
            NoWindowsError: nothing can be drawn yet.
            StoreUnavailableError: the store's server gives nothing now.
            CodecError: a chunk was damaged since it was stored.
        """
        leading = (batch_size, self._batch_length)
        if out is None:
            out = Rows.empty(leading, self._action_size)
        elif out.action.shape != (*leading, self._action_size):
            raise ValueError(f"out has actions of shape {out.action.shape}, not {(*leading, self._action_size)}")
        with self.drawn(batch_size) as parcel:
            return unpack(parcel, out)

    def prioritise(self, starts: NDArray[np.int64], losses: NDArray[np.float32]) -> None:
        """What the model lost on windows that were drawn, so that the next ones are drawn by it.

        Args:
            starts: int64 (n,), sequence numbers of the chunks in which they start: `Draw.starts`.
            losses: (n,), in nats.
        """
        self._sampler.prioritise(starts, losses)

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
            bytes=self._store.stored_bytes,
            inserted_chunks=self._inserted_chunks,
            sampled_sequences=self._sampled_sequences,
            usage=usage(),
            life=self._life,
            trouble=self._trouble,
            process=self._process,
        )

    def random_state(self) -> dict[str, Any]:
        """The generator's state, in values that JSON keeps exactly."""
        return dict(self._rng.bit_generator.state)

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Goes on drawing where `random_state` was taken; the same chunks held, the same windows are drawn.

        Priorities are no part of it: they begin anew with the shard.
        """
        self._rng.bit_generator.state = dict(state)

    def close(self) -> None:
        """Closes the store."""
        self._store.close()

    def _groups(self, arrived: Sequence[_Arrived]) -> Iterator[list[_Arrived]]:
        """Splits what arrived so that no chunk would evict one of its own group."""
        group: list[_Arrived] = []
        env_steps = 0
        for header, data in arrived:
            env_steps += header.env_steps(self._action_repeat)
            if group and env_steps > self._capacity:
                yield group
                group, env_steps = [], header.env_steps(self._action_repeat)
            group.append((header, data))
        if group:
            yield group

    def _append(self, group: Sequence[_Arrived]) -> int:
        """Stores the new ones among a group's chunks; returns their environment steps."""
        new: list[_Arrived] = []
        newest: dict[StreamKey, Mark] = {}
        for header, data in group:
            stream, mark = header.key.stream, (header.key.episode, header.key.index)
            if mark > max(self._marks.get(stream, _NO_MARK), newest.get(stream, _NO_MARK)):
                newest[stream] = mark
                new.append((header, data))
        if not new:
            return 0
        entries = [
            Entry(self._next_sequence + place, header.key, data, header.env_steps(self._action_repeat))
            for place, (header, data) in enumerate(new)
        ]
        env_steps = sum(entry.env_steps for entry in entries)
        evict = self._surplus(self._env_steps + env_steps - self._capacity)
        self._store.append(entries, evict)
        self._inserted_chunks += len(entries)
        self._marks |= newest
        for sequence in evict:
            self._env_steps -= self._held.pop(sequence).env_steps
            self._index.evict()
        for entry, (header, _) in zip(entries, new, strict=True):
            self._enter(entry.sequence, header)
        return env_steps

    def _read(self, draw: Draw, reading: ExitStack) -> Parcel:
        if draw.edition != self._edition or not self._held.keys() >= set(draw.sequences):
            raise ChunkGoneError("a chunk of these windows has left the replay since they were drawn")
        chunks = reading.enter_context(self._store.read(draw.sequences))
        self._first_look.check(draw, chunks)
        return read_parcel(draw, chunks, self._action_size)

    def _take_up(self) -> None:
        """Takes up what the store holds, in the place of all that was known."""
        marks, held = self._store.marks(), self._store.scan()
        self._marks = marks
        self._first_look = FirstLook()
        self._sampler = SAMPLERS[self._config.sampling](self._config)
        self._index = WindowIndex(self._batch_length, self._sampler)
        self._held: OrderedDict[int, _Held] = OrderedDict()  # by sequence number, oldest first
        self._env_steps = 0
        self._next_sequence = 0
        for sequence, header in held:
            self._enter(sequence, header)
        self._edition = secrets.token_hex(8)
        self._life = secrets.token_hex(8)  # of a shard that began anew elsewhere, the process may have the same number
        self._changed = False

    def _with_store(self, operation: Callable[[], _Result]) -> _Result:
        """Runs what reads or writes the store; if that was out of reach meanwhile, on what it holds now."""
        while True:
            try:
                if self._changed:
                    self._take_up()
                result = operation()
            except StoreChangedError:
                self._changed = True
            except StoreUnavailableError as error:
                self._trouble = str(error)
                self._life = secrets.token_hex(8)
                raise
            else:
                self._trouble = ""
                return result

    def _enter(self, sequence: int, header: Header) -> None:
        held = _Held(header.layout, header.env_steps(self._action_repeat))
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


def open_replay(config: Config, folder: Path | None, shard: int, action_size: int, password: str = "") -> Replay:
    """Opens a shard of a run's replay with the store, sizes and seed that the configuration names.

    Args:
        config: the run's configuration.
        folder: the run folder's `replay/`; None where there is no run folder.
        shard: which of `config.replay.shards` this is.
        action_size: A.
        password: of the store's server, where it has one.

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
        store=open_store(config, folder, shard, action_size, password),
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
