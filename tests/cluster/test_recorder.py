"""What a line of metrics.jsonl tells, and when there is one more to write."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.recorder import Recorder
from cluster.telemetry.telemetry import Telemetry
from common.reports import ReplayReport
from common.run_folder import RunFolder
from tests.cluster.simulated_roles import USAGE


def holding(env_steps: int) -> ReplayReport:
    return ReplayReport(env_steps, env_steps, env_steps, 1, 1, 1, 0, 1, 0, 0, USAGE)


def test_what_a_shard_reports_after_the_newest_line_is_new(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    recorder = Recorder(folder, Telemetry(folder), wall_seconds=0.0, best_return=None, resumed_at=None)
    recorder.replayed(0, holding(880))
    assert not recorder.anything_new, "what a run finds when it begins is no news"
    recorder.line(1200, 40, {})
    recorder.replayed(0, holding(880))
    assert not recorder.anything_new
    recorder.replayed(0, holding(1200))
    assert recorder.anything_new
    recorder.line(1200, 40, {})
    assert not recorder.anything_new
    recorder.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["replay_env_steps"] for line in lines] == [880, 1200]
