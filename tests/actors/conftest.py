"""Chooses this process's OpenGL backend before anything imports DMControl, and closes what tests leave open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.collector import Collector
from actors.rendering import configure

configure("auto")


@pytest.fixture(autouse=True)
def _closed_collectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes every collector, so that no watchdog outlives its test."""
    opened: list[Collector] = []
    build = Collector.__init__

    def remember(self: Collector, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        opened.append(self)

    monkeypatch.setattr(Collector, "__init__", remember)
    yield
    for each in opened:
        each.close()
