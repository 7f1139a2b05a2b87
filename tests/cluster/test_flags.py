"""Flags from dataclasses, and tyro's boxes as one line."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Literal

import pytest

from cluster.flags import parse
from common.errors import UserError


@dataclass(frozen=True)
class Inner:
    size: int = 3
    """How large."""


@dataclass(frozen=True)
class Arguments:
    """What this command does."""

    name: str = "x"
    """What it is called."""
    count: int = 1
    """How many."""
    share: float = 0.5
    """Which part."""
    angles: tuple[float, ...] = (0.0,)
    """Which angles."""
    mode: Literal["slow", "fast"] = "slow"
    """How fast."""
    loud: bool = False
    """Whether to shout."""
    inner: Inner = field(default_factory=Inner)


def test_flags_are_fields_by_their_dotted_names() -> None:
    args = ["--name", "y", "--count", "2", "--share", "1e-3", "--angles", "0", "5", "--mode", "fast", "--loud"]
    found = parse(Arguments, "test", [*args, "--inner.size", "9"])
    assert found == Arguments("y", 2, 1e-3, (0.0, 5.0), "fast", True, Inner(9))


def test_what_is_not_given_keeps_the_defaults_handed_in() -> None:
    default = Arguments(count=7, inner=Inner(8))
    assert parse(Arguments, "test", ["--name", "z"], default) == Arguments("z", 7, inner=Inner(8))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--nmae", "x"], ["--nmae", "--name"]),
        (["--inner.sice", "3"], ["--inner.sice", "--inner.size"]),
        (["--count", "many"], ["--count", "many"]),
        (["--count", "1.5"], ["--count", "1.5"]),
        (["--count"], ["--count"]),
        (["--mode", "medium"], ["--mode", "medium", "slow", "fast"]),
        (["--share", ""], ["--share"]),
        (["stray"], ["stray"]),
    ],
)
def test_what_cannot_be_parsed_is_one_line_that_names_it(
    args: list[str], words: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tyro draws its boxes as the terminal's encoding lets it."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    with pytest.raises(UserError) as raised:
        parse(Arguments, "test", args)
    line = str(raised.value)
    assert "\n" not in line
    assert not set(line) & set("│╭╰─╮╯")
    assert "---" not in line
    assert line.endswith("(see dreamfleet test --help)")
    for word in words:
        assert word in line
    out.flush()
    assert out.buffer.tell() == 0


def test_help_shows_every_field_with_its_doc_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Arguments, "test", ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in ("dreamfleet test", "What this command does", "--inner.size", "How large", "--loud", "Whether to"):
        assert word in shown
