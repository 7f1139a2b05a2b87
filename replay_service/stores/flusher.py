"""Flushes an LMDB file now and then, so that a power loss takes it back to what was flushed last, and no further.

LMDB keeps its file whole by flushing every commit, in order. Flushed more seldom, the file holds after a power loss any
mixture of its pages old and new. So from one flush to the next

- a read transaction holds on to the flushed state, and LMDB writes over none of its pages;
- a copy of the two meta pages, which say where that state begins, lies in a file of its own beside the data.

Whoever opens the file after the machine has started anew first puts those pages back. A killed process needs none of
this: the page cache outlives it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb

from common.durable import replace_durably, sync_folder
from common.errors import UserError

DATA_FILE = "data.mdb"
_RECORD = "flushed"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Flusher:
    """Flushes from a thread of its own whatever was written; the writer writes within `writing`.

    Args:
        folder: of the file.
        environment: the file, opened without flushing by its one writer.
        seconds: between two flushes, while there is something to flush.
    """

    def __init__(self, folder: Path, environment: lmdb.Environment, seconds: float) -> None:
        self._folder = folder
        self._environment = environment
        self._seconds = seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._unflushed = False
        self._late = False
        self._failure: lmdb.Error | None = None
        self._flushed: lmdb.Transaction | None = None
        self.flush()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """No flush begins before the block ends, and one follows within `seconds`.

        Raises:
            OSError: the last flush found no room for its record, and there is none now.
            UserError: the last flush failed; nobody knows what of the file is on the disk.
        """
        with self._lock:
            if self._failure is not None:
                raise UserError(
                    f"{self._folder}: the disk did not keep what was written ({self._failure}); once it works again, "
                    f"the same command resumes, at most {self._seconds:g} s of inserts earlier"
                ) from self._failure
            if self._late:
                self.flush()
            self._unflushed = True
            yield

    def flush(self) -> None:
        """Flushes now; nobody else may write meanwhile. To be called too when the map was made larger.

        Raises:
            lmdb.Error, OSError: it cannot be done.
        """
        self._environment.sync(True)
        with open(self._folder / DATA_FILE, "rb") as file:
            metas = file.read(2 * self._environment.stat()["psize"])
        flushed = self._environment.begin()
        try:
            replace_durably(self._folder / _RECORD, _boot() + metas)
        except OSError:
            flushed.abort()
            self._late = True  # nothing more may be written before this is done
            raise
        if self._flushed is not None:
            self._flushed.abort()
        self._flushed = flushed
        self._late = False

    def close(self) -> None:
        """Flushes for the last time and ends the thread."""
        self._stopped.set()
        self._thread.join()
        self._flush_what_was_written()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._flush_what_was_written()

    def _flush_what_was_written(self) -> None:
        with self._lock:
            if self._unflushed and self._failure is None:
                with contextlib.suppress(OSError):  # no room for the record: tried again, and before the next write
                    try:
                        self.flush()
                        self._unflushed = False
                    except lmdb.Error as error:
                        self._failure = error


def settle(folder: Path) -> None:
    """Before the file is opened to be written to: makes sure that what is in it now is on the disk.

    After a power loss that is what was flushed last.
    """
    record = folder / _RECORD
    if not record.exists():
        return
    if (folder / DATA_FILE).exists():
        with open(folder / DATA_FILE, "r+b") as file:
            if was_cut_off(folder):
                file.write(record.read_bytes()[len(_boot()) :])
                file.flush()
            os.fsync(file.fileno())
    record.unlink()
    sync_folder(folder)


def was_cut_off(folder: Path) -> bool:
    """Whether the machine has started anew since the file was written to, and nobody has settled it."""
    record = folder / _RECORD
    return record.exists() and not record.read_bytes().startswith(_boot())


def _boot() -> bytes:
    """Names the time from one start of this machine to the next."""
    return _BOOT.read_bytes()
