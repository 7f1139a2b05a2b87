"""Writing to a disk that may be full: waiting for room, for so long."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.errors import UserError

PAUSE_SECONDS = 0.5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_Result = TypeVar("_Result")


def is_full(error: OSError) -> bool:
    """Whether a disk, a quota or a limit on the size of files left no room."""
    return error.errno in _NO_ROOM


class Room:
    """Writes that wait while the disk is full.

    Args:
        seconds: how long; 0 does not wait.
        message: told once when the waiting begins, and once when it is over.
        meanwhile: called now and then while it lasts.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        message: Callable[[str], None] = lambda _: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self.seconds = seconds
        self.message = message
        self.meanwhile = meanwhile

    def write(self, path: Path, write: Callable[[], _Result]) -> _Result:
        """Writes, again and again while there is no room; a write that failed must leave nothing half done.

        Args:
            path: what is written, for people.
            write: writes.

        Raises:
            UserError: there was no room for `seconds`, or the disk refuses for another reason.
        """
        began = None
        while True:
            try:
                result = write()
            except OSError as error:
                why = f"cannot write {path}: {os.strerror(error.errno) if error.errno else error}"
                if not is_full(error):
                    raise UserError(why) from error
                if began is None:
                    began = time.monotonic()
                    if self.seconds:
                        self.message(f"{why}; waiting up to {self.seconds:.0f} s for room")
                if time.monotonic() - began >= self.seconds:
                    waited = f"; waited {self.seconds:.0f} s (--redis-timeout)" if self.seconds else ""
                    raise UserError(f"{why}{waited}; make room, and the same command resumes") from error
                time.sleep(PAUSE_SECONDS)
                self.meanwhile()
            else:
                if began is not None:
                    self.message("the disk has room again")
                return result
