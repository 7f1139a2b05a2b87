"""Totals in the run folder: damage and a full disk cost them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.telemetry.numbers import Numbers
from cluster.telemetry.telemetry import Telemetry
from common.run_folder import RunFolder


def test_what_was_published_is_there_in_the_next_life(tmp_path: Path) -> None:
    telemetry = Telemetry(RunFolder(tmp_path))
    telemetry.numbers.add("episodes_total", 3)
    telemetry.publish()
    assert Telemetry(RunFolder(tmp_path)).public.counters["episodes_total",] == 3


@pytest.mark.parametrize("content", [b"", b"{", b'{"counters": [["episodes_total", 3', b"\xff\x00", b"[]", b"7"])
def test_totals_that_a_power_loss_damaged_are_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".totals").write_bytes(content)
    assert Telemetry(RunFolder(tmp_path)).public.counters == Numbers().counters


def test_totals_that_cannot_be_written_are_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / ".totals.tmp").mkdir()
    telemetry = Telemetry(RunFolder(tmp_path))
    telemetry.numbers.add("episodes_total", 3)
    telemetry.publish()
    assert telemetry.public.counters["episodes_total",] == 3
