"""Chunks in an LMDB file in the run folder, read through the page cache: the default.

A chunk, its stream's mark, the counters and the evictions are one write transaction: a killed process leaves all of
them or none. A commit reaches the page cache before `append` returns, and the disk too with `sync`; without it a power
loss may cost the whole file, for nothing then orders its pages.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import lmdb
import lmdb.verify
import msgpack

from common.config import Config
from common.errors import UserError
from common.sequence import IMAGE_SHAPE, ChunkKey, StreamKey
from replay_service.codec import VERSION, BytesLike, CodecError, Header, as_memoryview, read_header

_SEQUENCE = struct.Struct(">Q")  # big-endian, so that LMDB's order of keys is the order of insertion
_STREAM = struct.Struct(">QQQ")
_MARK = struct.Struct(">QQ")
_FIRST_MAP_BYTES = 64 * 2**20


class LmdbStore:
    """Implements `replay_service.stores.Store` with LMDB.

    Args:
        folder: made if missing; holds nothing else.
        action_size: A of every chunk.
        sync: flush each append to the disk before it returns.

    Raises:
        UserError: another process has the folder open, its chunks have another layout, or its file is damaged.
    """

    def __init__(self, folder: Path, action_size: int, sync: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with ExitStack() as undo, _one_clear_error(folder):
            self._lock = undo.enter_context(open(folder / "writer.lock", "w"))
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._environment = undo.enter_context(_open_environment(folder, sync))
            self._chunks = self._environment.open_db(b"chunks")
            self._marks = self._environment.open_db(b"marks")
            self._facts = self._environment.open_db(b"facts")
            self._inserted_env_steps = self._read_facts(action_size)
            undo.pop_all()

    @classmethod
    def open(cls, config: Config, folder: Path | None, shard: int, action_size: int) -> Self:
        """Opens, or makes, the shard's own folder within `folder`."""
        if folder is None:
            raise UserError("--replay-store lmdb needs a run folder; give --run-dir or choose memory")
        return cls(folder / f"shard-{shard}", action_size, config.replay.sync)

    @property
    def inserted_env_steps(self) -> int:
        """See `Store.inserted_env_steps`."""
        return self._inserted_env_steps

    @property
    def bytes(self) -> int:
        """The file's size, pages that wait to be used again included."""
        return (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]

    def append(self, sequence: int, key: ChunkKey, data: BytesLike, env_steps: int, evict: Sequence[int]) -> None:
        """See `Store.append`."""
        inserted = self._inserted_env_steps + env_steps
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for old in evict:
                        transaction.delete(_SEQUENCE.pack(old), db=self._chunks)
                    transaction.put(_SEQUENCE.pack(sequence), as_memoryview(data), append=True, db=self._chunks)
                    transaction.put(_STREAM.pack(*key.stream), _MARK.pack(key.episode, key.index), db=self._marks)
                    transaction.put(b"inserted_env_steps", msgpack.packb(inserted), db=self._facts)
                break
            except lmdb.MapFullError:  # nothing was committed; the file is sparse, a larger map costs nothing
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        self._inserted_env_steps = inserted

    @contextmanager
    def read(self, sequences: Sequence[int]) -> Iterator[list[BytesLike]]:
        """See `Store.read`; the bytes lie in the file's own pages."""
        with self._environment.begin(buffers=True, db=self._chunks) as transaction:
            # numpy takes None for "make new memory": a missing chunk must fail instead
            yield [transaction.get(_SEQUENCE.pack(sequence), b"") for sequence in sequences]

    def scan(self) -> list[tuple[int, Header]]:
        """See `Store.scan`; a chunk whose header is damaged ends it with a UserError."""
        with self._environment.begin(buffers=True) as transaction, _one_clear_error(self._folder):
            return [
                (_SEQUENCE.unpack(number)[0], read_header(data)) for number, data in transaction.cursor(self._chunks)
            ]

    def marks(self) -> dict[StreamKey, tuple[int, int]]:
        """See `Store.marks`."""
        with self._environment.begin() as transaction:
            return {
                StreamKey(*_STREAM.unpack(stream)): _MARK.unpack(mark)
                for stream, mark in transaction.cursor(self._marks)
            }

    def close(self) -> None:
        """See `Store.close`."""
        self._environment.close()
        self._lock.close()

    def _read_facts(self, action_size: int) -> int:
        """Holds the file's layout, written when it was new, against this run's; returns its inserted steps."""
        layout = {"version": VERSION, "image": list(IMAGE_SHAPE), "action_size": action_size}
        packed: bytes = msgpack.packb(layout)
        with self._environment.begin(write=True, db=self._facts) as transaction:
            transaction.put(b"layout", packed, overwrite=False)
            found = transaction.get(b"layout", packed)
            inserted: int = msgpack.unpackb(transaction.get(b"inserted_env_steps", msgpack.packb(0)))
        if found != packed:
            raise UserError(
                f"{self._folder}: holds chunks of layout {msgpack.unpackb(found)}, this run has {layout}; "
                "choose another run folder"
            )
        return inserted


def _open_environment(folder: Path, sync: bool) -> lmdb.Environment:
    data_file = folder / "data.mdb"
    # LMDB trusts its file, and a damaged one may crash the process; a second for 25,000 chunks buys certainty.
    if data_file.exists() and data_file.stat().st_size and (problems := lmdb.verify.verify(str(data_file))):
        raise lmdb.CorruptedError(problems[0])
    environment = lmdb.open(
        str(folder), map_size=_FIRST_MAP_BYTES, max_dbs=3, max_spare_txns=1, sync=sync, metasync=sync
    )
    environment.reader_check()  # a killed process' read transaction would keep old pages from being used again
    return environment


@contextmanager
def _one_clear_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise UserError(f"{folder}: another process has this replay open; wait until it has ended") from error
    except (lmdb.Error, lmdb.verify.VerifyError, CodecError) as error:
        raise UserError(f"{folder}: this replay is damaged ({error}); move it away to start an empty one") from error
