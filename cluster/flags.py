"""Command-line flags from typed dataclasses (tyro), with its boxed errors turned into one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from common.errors import UserError

T = TypeVar("T")


def parse(what: type[T], command: str, args: Sequence[str], default: T | None = None) -> T:
    """Parses `args` into the dataclass `what`.

    Raises:
        UserError: one line that says what is wrong with the flags.
        SystemExit: after printing the help, with code 0.
    """
    boxes = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxes):
            return tyro.cli(  # type: ignore[return-value]  # tyro types a None default as a possible result
                what,
                prog=f"dreamfleet {command}",
                args=list(args),
                default=default,
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise UserError(one_line(boxes.getvalue(), command)) from None


def one_line(boxes: str, command: str) -> str:
    """The substance of tyro's error box, drawn in UTF-8 or in ASCII: its first paragraph, and the flag it suggests."""
    rows = [re.sub(r"^[│╭╰\s]+|[│╮╯\s]+$", "", row) for row in boxes.splitlines() if row.strip()]
    title_rows = 2 if rows[1].startswith("---") else 1
    paragraphs = [part.strip() for part in re.split(r"^[─-]{3,}$", "\n".join(rows[title_rows:]), flags=re.MULTILINE)]
    text = " ".join(paragraphs[0].split()).rstrip(".")
    for paragraph in paragraphs[1:]:
        if paragraph.startswith("Perhaps you meant"):
            near = re.search(r"--[\w.-]+", paragraph)
            text += f"; perhaps you meant {near[0]}" if near else ""
    return f"{text} (see dreamfleet {command} --help)"
