"""`dreamfleet adjust`: a run that changes its train ratio while it runs."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.control import Control, ask
from cluster.coordinator import Coordinator
from cluster.main import main
from common.config import Config
from common.presets import smoke
from common.run_folder import RunFolder
from replay_service.limiter import RateLimiter
from tests.cluster.commands import one_line_and_exit_2, snapshot
from tests.cluster.expectations import stop_after
from tests.cluster.simulated import Faults, Run, SimulatedRuntime, config, simulate
from tests.cluster.simulated_roles import Disk


def begun(path: Path, **changes: object) -> RunFolder:
    folder = RunFolder(path)
    folder.create(replace(smoke(), **changes))
    return folder


class Adjusting:
    """Asks for a train ratio once the run has so many environment steps, and holds it to the band before and after."""

    def __init__(self, wanted: Config, env_steps: int, ratio: float) -> None:
        self.wanted, self.env_steps, self.ratio = wanted, env_steps, ratio
        self.at: tuple[int, int] | None = None

    def __call__(self, coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        limiter = coordinator.limiter
        if self.at is None and limiter.env_steps >= self.env_steps:
            assert main(["adjust", str(coordinator.folder.path), "--train-ratio", str(self.ratio)]) == 0
            self.at = limiter.env_steps, limiter.updates
        assert limiter.train_ratio in (self.wanted.train_ratio, self.ratio)
        tolerance = limiter.train_ratio * 1000
        assert -tolerance - 1e-6 <= limiter.error < self.wanted.replay.pretrain + tolerance + 1


def changes(run: Run) -> list[object]:
    return [line["config_changes"] for line in run.folder.metrics() if "config_changes" in line]


@pytest.mark.parametrize("ratio", [0.01, 0.5])
@pytest.mark.parametrize("speed", [100.0, 5000.0])
def test_a_run_goes_on_at_the_ratio_that_it_is_asked_for(ratio: float, speed: float, tmp_path: Path) -> None:
    wanted = config(env_steps=20_000, train_ratio=0.1)
    adjusting = Adjusting(wanted, 6000, ratio)
    run = simulate(wanted, tmp_path, env_steps_per_second=speed, watch=adjusting)
    assert run.summary["finished"]
    assert adjusting.at is not None
    steps, updates = (run.summary[name] - at for name, at in zip(("env_steps", "updates"), adjusting.at, strict=True))
    band = wanted.replay.pretrain + 2 * 1000 * max(ratio, wanted.train_ratio)
    assert ratio * steps - band <= updates <= ratio * steps + band
    assert changes(run) == [{"train_ratio": {"from": 0.1, "to": ratio}}]
    assert f"the train ratio is {ratio:g} from here on, and was 0.1" in run.text
    lines = run.folder.metrics()
    assert [line["env_steps"] for line in lines] == sorted(line["env_steps"] for line in lines)


@settings(deadline=None, max_examples=15)
@given(
    asked=st.dictionaries(st.integers(0, 6000), st.sampled_from([0.02, 0.05, 0.3, 1.0]), max_size=4),
    speed=st.sampled_from([100.0, 400.0, 5000.0]),
    chance=st.sampled_from([0.0, 0.02]),
)
def test_the_band_holds_through_any_changes_and_deaths(asked: dict[int, float], speed: float, chance: float) -> None:
    wanted, left = config(), dict(asked)

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        limiter = coordinator.limiter
        for env_steps in [at for at in left if at <= limiter.env_steps]:
            ask(coordinator.folder, left.pop(env_steps))
        tolerance = limiter.train_ratio * 1000
        assert -tolerance - 1e-6 <= limiter.error < wanted.replay.pretrain + tolerance + 1
        assert limiter.updates_allowed() <= wanted.replay.pretrain + 2 * tolerance + 1

    faults = Faults(seed=len(asked), chance={"collector": chance})
    with tempfile.TemporaryDirectory() as folder:
        run = simulate(wanted, Path(folder), env_steps_per_second=speed, faults=faults, watch=watch)
    assert run.summary["finished"]
    assert run.summary["updates"] == run.runtime.done


def test_a_resumed_run_goes_on_at_the_adjusted_ratio_and_says_so(tmp_path: Path) -> None:
    wanted, disk = config(env_steps=10_000), Disk()
    adjusting = Adjusting(wanted, 2000, 0.4)

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        adjusting(coordinator, runtime)
        stop_after(4000)(coordinator, runtime)

    first = simulate(wanted, tmp_path, disk=disk, watch=watch)
    ratios = set()
    second = simulate(wanted, tmp_path, disk=disk, watch=lambda c, _: ratios.add(c.limiter.train_ratio))
    assert not first.summary["finished"]
    assert second.summary["finished"]
    assert second.runtime.disk is disk
    assert "the train ratio was adjusted to 0.4" in second.text
    assert ratios - {0.4} <= {0.1}, "nothing but the calls before the checkpoint was read"
    assert changes(second) == [{"train_ratio": {"from": 0.1, "to": 0.4}}]
    assert second.folder.load_config().train_ratio == 0.1, "the command that resumes it stays the same"


def test_a_run_that_stands_still_takes_the_change_up_when_it_is_resumed(tmp_path: Path) -> None:
    wanted, disk = config(), Disk()
    simulate(wanted, tmp_path, disk=disk, watch=stop_after(3000))
    assert main(["adjust", str(tmp_path), "--train-ratio", "0.3"]) == 0
    second = simulate(wanted, tmp_path, disk=disk)
    assert second.coordinator.limiter.train_ratio == 0.3
    assert changes(second) == [{"train_ratio": {"from": 0.1, "to": 0.3}}]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"train_ratio": "fast"}', '{"train_ratio": true}', "\0"])
def test_a_file_that_somebody_else_wrote_is_named_once_and_changes_nothing(content: str, tmp_path: Path) -> None:
    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        (tmp_path / "control.json").write_text(content)

    run = simulate(config(), tmp_path, watch=watch)
    assert run.summary["finished"]
    assert run.text.count("not adjusted") == (content != "")
    assert changes(run) == []


@pytest.mark.parametrize("ratio", [-1.0, 1e-310])
def test_a_ratio_that_cannot_be_is_named_and_changes_nothing(ratio: float, tmp_path: Path) -> None:
    run = simulate(config(), tmp_path, watch=lambda c, _: ask(c.folder, ratio))
    assert run.summary["finished"]
    assert f"not adjusted: --train-ratio {ratio}" in run.text
    assert changes(run) == []


def test_a_ratio_that_is_taken_back_before_it_is_held_changes_nothing(tmp_path: Path) -> None:
    folder, limiter = begun(tmp_path), RateLimiter.from_config(config())
    control = Control(folder, limiter, pytest.fail)
    for ratio, wanted in ((0.3, 0.3), (limiter.train_ratio, None)):
        ask(folder, ratio)
        control.look()
        assert control.wanted == wanted


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0", "--train-ratio must be positive"),
        ("-1", "--train-ratio must be positive"),
        ("nan", "--train-ratio must be a finite number"),
        ("101", "--train-ratio must be at most 100"),
        ("1e-310", "--train-ratio 1e-310 must be a finite number, at least 1e-09"),
        ("fast", "--train-ratio"),
    ],
)
def test_a_value_that_cannot_be_is_refused(
    value: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path)
    before = snapshot(tmp_path)
    assert reason in one_line_and_exit_2(["adjust", str(tmp_path), "--train-ratio", value], capsys)
    assert snapshot(tmp_path) == before


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line_and_exit_2(["adjust", str(tmp_path / "nothing"), "--train-ratio", "1"], capsys)
    assert "is no run folder" in line
    assert not (tmp_path / "nothing").exists()


def test_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path).write_summary({"finished": True})
    assert "is finished" in one_line_and_exit_2(["adjust", str(tmp_path), "--train-ratio", "1"], capsys)
    assert not (tmp_path / "control.json").exists()


def test_an_offline_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path, offline="somewhere")
    assert "--offline" in one_line_and_exit_2(["adjust", str(tmp_path), "--train-ratio", "1"], capsys)


def test_a_stopped_run_is_adjusted_and_the_file_holds_one_object(tmp_path: Path) -> None:
    begun(tmp_path).write_summary({"finished": False})
    for ratio in (0.5, 0.25):
        assert main(["adjust", str(tmp_path), "--train-ratio", str(ratio)]) == 0
    assert json.loads((tmp_path / "control.json").read_text()) == {"train_ratio": 0.25}
    assert [path.name for path in tmp_path.glob("*control*")] == ["control.json"]
