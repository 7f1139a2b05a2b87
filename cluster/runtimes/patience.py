"""Asking a store that is away until it is back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from replay_service.stores.trouble import StoreGaveUpError, StoreUnavailableError

PAUSE_SECONDS = 0.5

_Answer = TypeVar("_Answer")


def patiently(ask: Callable[[], _Answer], seconds: float) -> _Answer:
    """Asks until there is an answer.

    Raises:
        StoreGaveUpError: there was none for `seconds`.
    """
    began = time.monotonic()
    while True:
        try:
            return ask()
        except StoreUnavailableError as error:
            if time.monotonic() - began >= seconds:
                why = str(getattr(error, "cause", error)).rstrip(
                    "."
                )  # an actor's error keeps the store's own as its cause
                raise StoreGaveUpError(
                    f"{why}; waited {seconds:.0f} s (--redis-timeout); the same command resumes"
                ) from None
            time.sleep(PAUSE_SECONDS)
