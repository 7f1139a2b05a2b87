"""One process at a time in a folder: an advisory lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from common.errors import UserError

LOCK_NAME = ".lock"


class InUseError(UserError):
    """Another process holds the folder."""


def claim(folder: Path) -> int:
    """Claims an existing folder until the returned descriptor is closed or this process ends.

    Raises:
        InUseError: another process holds it; the text names that process.
        OSError: the folder cannot be written.
    """
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 256, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise InUseError(f"{folder} is in use by {owner}") from error
    sign(descriptor, os.getpid())
    return descriptor


def sign(descriptor: int, process: int) -> None:
    """Says in a claimed folder which process works in it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {process} on {socket.gethostname()}\n".encode(), 0)
