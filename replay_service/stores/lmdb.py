"""Chunks in an LMDB file in the run folder, read through the page cache: the default.

A chunk, its stream's mark, the counters and the evictions are one write transaction: a killed process leaves all of
them or none. A commit reaches the page cache before `append` returns; when it reaches the disk, and so outlives a power
loss, is the run's choice (`--replay.sync`):

- `always`: before `append` returns;
- `interval`: within so many seconds, and a power loss takes the file back to the last flush (`flusher.py`);
- `never`: when the system likes; nothing then orders its pages, and a power loss may cost the whole file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Self

import lmdb
import lmdb.verify

from common.config import Config, Sync
from common.errors import UserError
from common.sequence import StreamKey
from replay_service.codec import BytesLike, CodecError, Header, as_memoryview, read_header
from replay_service.stores.flusher import DATA_FILE, Flusher, settle, was_cut_off
from replay_service.stores.interface import Entry, Mark
from replay_service.stores.records import (
    RecordError,
    pack_count,
    pack_layout,
    pack_mark,
    pack_stream,
    seal,
    unpack_count,
    unpack_layout,
    unpack_mark,
    unseal,
)
from replay_service.stores.trouble import ChunkGoneError, StoreDamagedError, StoreUnavailableError

_SEQUENCE = struct.Struct(">Q")  # big-endian, so that LMDB's order of keys is the order of insertion
_FIRST_MAP_BYTES = 64 * 2**20
_REFUSED_WRITES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # LMDB says EIO when a part was still written
_LOCK_BYTES = 8192  # what LMDB's lock file has for the readers that it allows
_DATABASES = (b"chunks", b"marks", b"facts")


class LmdbReader:
    """Implements `replay_service.stores.StoreReader` on the file of a store that may be written to meanwhile.

    Args:
        folder: the store's.

    Raises:
        UserError: there is no store, or its file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DATA_FILE).exists():
            raise UserError(f"{folder}: there is no replay here")
        refuse_unsettled(folder)
        with _clear_errors(folder):
            self._use(folder, lmdb.open(str(folder), readonly=True, max_dbs=len(_DATABASES), max_spare_txns=1))

    @classmethod
    def open(cls, config: Config, folder: Path, shard: int, password: str) -> Self:
        """Opens the shard's own folder within `folder`."""
        return cls(shard_folder(folder, shard))

    def _use(self, folder: Path, environment: lmdb.Environment) -> None:
        self._folder = folder
        self._environment = environment
        self._chunks, self._marks, self._facts = (environment.open_db(name) for name in _DATABASES)

    @property
    def action_size(self) -> int:
        """See `StoreReader.action_size`."""
        with self._transaction() as transaction:
            layout = unseal("layout", bytes(transaction.get(b"layout", b"", db=self._facts)))
            size: int = unpack_layout(layout)["action_size"]
        return size

    @property
    def inserted_env_steps(self) -> int:
        """See `StoreReader.inserted_env_steps`."""
        with self._transaction() as transaction:
            packed = transaction.get(b"inserted_env_steps", db=self._facts)
            return unpack_count(unseal("inserted_env_steps", bytes(packed))) if packed is not None else 0

    @property
    def stored_bytes(self) -> int:
        """The file's size, pages that wait to be used again included."""
        return (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]

    @contextmanager
    def read(self, sequences: Sequence[int]) -> Iterator[list[BytesLike]]:
        """See `StoreReader.read`; the bytes lie in the file's own pages."""
        with self._transaction() as transaction:
            found = [transaction.get(_SEQUENCE.pack(sequence), db=self._chunks) for sequence in sequences]
            if None in found:
                raise ChunkGoneError(f"{self._folder}: chunk {sequences[found.index(None)]} is not there")
            yield [data for data in found if data is not None]

    def scan(self) -> list[tuple[int, Header]]:
        """See `StoreReader.scan`; a chunk whose header is damaged ends it with a StoreDamagedError."""
        found: list[tuple[int, Header]] = []
        with self._transaction() as transaction:
            for number, data in transaction.cursor(self._chunks):
                (sequence,) = _SEQUENCE.unpack(number)
                try:
                    found.append((sequence, read_header(data)))
                except CodecError as error:
                    raise _damaged(self._folder, f"chunk {sequence}: {error}") from error
        return found

    def marks(self) -> dict[StreamKey, Mark]:
        """See `StoreReader.marks`."""
        with self._transaction() as transaction:
            return dict(
                unpack_mark(bytes(stream), unseal("a mark", bytes(mark)))
                for stream, mark in transaction.cursor(self._marks)
            )

    def close(self) -> None:
        """See `StoreReader.close`."""
        self._environment.close()

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        with _clear_errors(self._folder), self._begin() as transaction:
            yield transaction

    def _begin(self) -> lmdb.Transaction:
        try:
            return self._environment.begin(buffers=True)
        except lmdb.MapResizedError:  # the writer has made its map larger
            self._environment.set_mapsize(0)
            return self._environment.begin(buffers=True)


class LmdbStore(LmdbReader):
    """Implements `replay_service.stores.Store` with LMDB.

    Args:
        folder: made if missing; holds nothing else.
        action_size: A of every chunk.
        sync: when what is appended reaches the disk, see above.
        sync_seconds: how often, for `interval`.

    Raises:
        UserError: another process has the folder open, its chunks have another layout, or its file is damaged.
        StoreUnavailableError: the disk is full.
    """

    def __init__(self, folder: Path, action_size: int, sync: Sync, sync_seconds: float = 1.0) -> None:
        with _clear_errors(folder), ExitStack() as undo:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = undo.enter_context(open(folder / "writer.lock", "w"))
            _claim(self._lock, folder)
            settle(folder)
            _reserve(folder / "lock.mdb", _LOCK_BYTES)
            self._use(folder, undo.enter_context(_open_environment(folder, flush=sync == "always")))
            self._check_layout(action_size)
            self._inserted_env_steps = super().inserted_env_steps
            self._flusher = Flusher(folder, self._environment, sync_seconds) if sync == "interval" else None
            undo.pop_all()

    @classmethod
    def open_to_write(cls, config: Config, folder: Path | None, shard: int, action_size: int, password: str) -> Self:
        """Opens, or makes, the shard's own folder within `folder`."""
        if folder is None:
            raise UserError("--replay-store lmdb needs a run folder; give --run-dir or choose memory")
        return cls(shard_folder(folder, shard), action_size, config.replay.sync, config.replay.sync_seconds)

    @property
    def inserted_env_steps(self) -> int:
        """See `StoreReader.inserted_env_steps`."""
        return self._inserted_env_steps

    def append(self, entries: Sequence[Entry], evict: Sequence[int]) -> None:
        """See `Store.append`."""
        inserted = self._inserted_env_steps + sum(entry.env_steps for entry in entries)
        self._environment.reader_check()  # a killed process' read transaction would keep old pages from being reused
        with _clear_errors(self._folder), self._flusher.writing() if self._flusher else nullcontext():
            try:
                while not self._commit(entries, evict, inserted):  # the file is sparse, a larger map costs nothing
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                    if self._flusher:
                        self._flusher.flush()
            except lmdb.Error:
                os.truncate(self._folder / DATA_FILE, self.stored_bytes)  # gives back what it took of the last room
                raise
        self._inserted_env_steps = inserted

    def close(self) -> None:
        """See `StoreReader.close`."""
        if self._flusher:
            self._flusher.close()
        super().close()
        self._lock.close()

    def _commit(self, entries: Sequence[Entry], evict: Sequence[int], inserted: int) -> bool:
        """One transaction; False if the map is too small for it, and nothing was done."""
        try:
            with self._environment.begin(write=True) as transaction:
                for old in evict:
                    transaction.delete(_SEQUENCE.pack(old), db=self._chunks)
                for sequence, key, data, _ in entries:
                    transaction.put(_SEQUENCE.pack(sequence), as_memoryview(data), append=True, db=self._chunks)
                    mark = seal(pack_mark((key.episode, key.index)))
                    transaction.put(pack_stream(key.stream), mark, db=self._marks)
                transaction.put(b"inserted_env_steps", seal(pack_count(inserted)), db=self._facts)
        except lmdb.MapFullError:
            return False
        return True

    def _check_layout(self, action_size: int) -> None:
        """Holds the file's layout, written when it was new, against this run's."""
        layout = seal(pack_layout(action_size))
        with self._environment.begin(write=True, db=self._facts) as transaction:
            transaction.put(b"layout", layout, overwrite=False)
            found = transaction.get(b"layout", layout)
        if found != layout:
            raise UserError(
                f"{self._folder}: holds chunks of layout {unpack_layout(unseal('layout', found))}, this run has "
                f"{unpack_layout(unseal('layout', layout))}; choose another run folder"
            )


def shard_folder(folder: Path, shard: int) -> Path:
    """Where a shard's file lies in the run folder's `replay/`."""
    return folder / f"shard-{shard}"


def _reserve(file: Path, size: int) -> None:
    """Takes all the disk of a file that is written through memory: where none is left, that would kill its writer."""
    with open(file, "ab") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)


def refuse_unsettled(folder: Path) -> None:
    """Raises UserError if the folder's file has been through a power loss that nobody has mended yet."""
    if was_cut_off(folder):
        raise UserError(
            f"{folder}: the machine has started anew while its run went on; resume the run, which mends this"
        )


def _open_environment(folder: Path, flush: bool) -> lmdb.Environment:
    data_file = folder / DATA_FILE
    # LMDB trusts its file, and a damaged one may crash the process; a second for 25,000 chunks buys certainty.
    if data_file.exists() and data_file.stat().st_size and (problems := lmdb.verify.verify(str(data_file))):
        raise lmdb.CorruptedError(problems[0])
    return lmdb.open(
        str(folder), map_size=_FIRST_MAP_BYTES, max_dbs=len(_DATABASES), max_spare_txns=1, sync=flush, metasync=flush
    )


def _claim(lock: IO[str], folder: Path) -> None:
    """Keeps other writers out until the lock is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder}: another process has this replay open; wait until it has ended") from error


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Turns what goes wrong with the file into the store's own errors."""
    try:
        yield
    except (lmdb.Error, lmdb.verify.VerifyError, RecordError, OSError) as error:
        if (why := _why_nothing_is_taken(error)) is not None:
            free = shutil.disk_usage(folder).free / 1e6
            raise StoreUnavailableError(
                f"{folder}: the disk takes nothing more ({why}, {free:,.1f} MB free)"
            ) from error
        if isinstance(error, OSError | lmdb.ReadonlyError):
            raise UserError(f"{folder}: cannot be used: {error}") from error
        raise _damaged(folder, error) from error


def _why_nothing_is_taken(error: Exception) -> str | None:
    """The system's own words where it refuses a write; None if the error is another."""
    return next((why for why in map(os.strerror, _REFUSED_WRITES) if why in str(error)), None)


def _damaged(folder: Path, why: object) -> StoreDamagedError:
    return StoreDamagedError(f"{folder}: this replay is damaged ({why}); move it away to start an empty one")
