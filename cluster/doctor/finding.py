"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        status: ok; warn: runs go without it, slower or with less; missing: no run goes without it.
        detail: what was found.
        advice: what to do about it; empty when nothing need be done.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""
