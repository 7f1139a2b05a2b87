"""Deaths, back-off and hangs, on a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cluster.runtimes.runtime import Call, Role, RoleDiedError
from cluster.supervision import Supervisor
from common.config import Config, EnvironmentConfig
from common.errors import UserError

COLLECTOR = Role("collector", 1)
LEARNER = Role("learner")
KILLED = RoleDiedError("killed")


class Recording:
    """A runtime that writes down who is started and killed."""

    def __init__(self, slice_seconds: float | None = 1.0) -> None:
        self.slice_seconds = slice_seconds
        self.started: list[tuple[Role, int]] = []
        self.killed: list[Role] = []
        self.homeless: set[Role] = set()

    def start(self, role: Role, incarnation: int) -> None:
        self.started.append((role, incarnation))

    def kill(self, role: Role) -> None:
        self.killed.append(role)

    def is_up(self, role: Role) -> bool:
        return role not in self.homeless

    def call(self, role: Role, method: str, *args: object) -> None:
        raise AssertionError("a supervisor calls nobody")

    def wait(self, timeout: float) -> Call | None:
        raise AssertionError("a supervisor waits for nobody")

    def share(self, value: object) -> object:
        raise AssertionError("a supervisor shares nothing")

    def shutdown(self) -> None:
        raise AssertionError("a supervisor ends nothing")


class Bench:
    """A supervisor, its runtime, its clock and what it said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slice_seconds: float | None = 1.0) -> None:
        self.now = 0.0
        self.hurried = False
        monkeypatch.setattr("cluster.supervision.time", SimpleNamespace(monotonic=lambda: self.now))
        self.runtime = Recording(slice_seconds)
        self.said: list[str] = []
        incarnations = iter(range(1, 1000))
        config = Config(environment=EnvironmentConfig(hang_seconds=60.0))
        self.supervisor = Supervisor(
            self.runtime, config, lambda: next(incarnations), self.said.append, lambda: self.hurried
        )

    def look(self, until: float) -> None:
        """Turns the clock, and has the supervisor look on meanwhile, as a coordinator does."""
        while self.now < until:
            self.now = min(until, self.now + 5.0)
            self.supervisor.watch()

    def down_seconds(self, role: Role) -> float:
        """How long the role stays down from now on, to a tenth of a second."""
        began = self.now
        while not self.supervisor.alive(role):
            self.now += 0.1
        return self.now - began


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_dead_role_is_down_until_its_pause_is_over_and_has_a_new_incarnation(bench: Bench) -> None:
    bench.supervisor.start(COLLECTOR)
    assert bench.supervisor.alive(COLLECTOR)
    bench.supervisor.died(COLLECTOR, KILLED)
    assert bench.supervisor.is_down(COLLECTOR)
    assert not bench.supervisor.alive(COLLECTOR)
    assert bench.down_seconds(COLLECTOR) == pytest.approx(1.0, abs=0.11)
    assert not bench.supervisor.is_down(COLLECTOR)
    assert bench.runtime.started == [(COLLECTOR, 1), (COLLECTOR, 2)]
    assert bench.supervisor.restarts == {"collector": 1}
    assert bench.said == ["collector 1 died and starts again in 1 s: killed"]


def test_pauses_double_while_it_keeps_dying(bench: Bench) -> None:
    bench.supervisor.start(COLLECTOR)
    pauses = []
    for _ in range(7):
        bench.supervisor.died(COLLECTOR, KILLED)
        pauses.append(round(bench.down_seconds(COLLECTOR)))
    assert pauses == [1, 2, 4, 8, 16, 32, 60]
    with pytest.raises(UserError, match="collector 1 died 8 times in a row without progress: killed"):
        bench.supervisor.died(COLLECTOR, KILLED)


def test_progress_forgives_the_deaths_of_that_role_alone(bench: Bench) -> None:
    other = Role("collector", 2)
    for role in (COLLECTOR, other):
        bench.supervisor.start(role)
        for _ in range(3):
            bench.supervisor.died(role, KILLED)
            bench.down_seconds(role)
    bench.supervisor.progressed(COLLECTOR)
    for role, pause in ((COLLECTOR, 1), (other, 8)):
        bench.supervisor.died(role, KILLED)
        assert round(bench.down_seconds(role)) == pause


def test_a_collector_that_does_not_come_back_is_killed_once_a_patience(bench: Bench) -> None:
    bench.supervisor.start(COLLECTOR)
    bench.supervisor.called(COLLECTOR, "collect")
    bench.supervisor.ended(COLLECTOR)
    bench.supervisor.called(COLLECTOR, "collect")
    bench.look(until=60.9)
    assert bench.runtime.killed == []
    bench.look(until=61.1)
    bench.supervisor.watch()
    assert bench.runtime.killed == [COLLECTOR]
    bench.look(until=123.0)
    assert bench.runtime.killed == [COLLECTOR, COLLECTOR]


def test_nobody_is_to_blame_for_a_time_in_which_the_coordinator_was_held_up(bench: Bench) -> None:
    bench.supervisor.called(COLLECTOR, "collect")
    bench.supervisor.called(LEARNER, "update")
    bench.now = 700.0  # it wrote a checkpoint to a disk that had stopped
    bench.supervisor.watch()
    assert bench.runtime.killed == []
    assert bench.said == []
    bench.look(until=760.0)
    assert bench.runtime.killed == []
    bench.look(until=762.0)
    assert bench.runtime.killed == [COLLECTOR]


def test_the_first_call_of_a_new_process_may_take_longer(bench: Bench) -> None:
    bench.supervisor.start(COLLECTOR)
    bench.supervisor.called(COLLECTOR, "collect")
    bench.look(until=179.0)
    assert bench.runtime.killed == []
    bench.look(until=181.0)
    assert bench.runtime.killed == [COLLECTOR]


def test_a_collector_that_is_not_called_does_not_hang(bench: Bench) -> None:
    bench.supervisor.start(COLLECTOR)
    bench.supervisor.called(COLLECTOR, "collect")
    bench.supervisor.ended(COLLECTOR)
    bench.look(until=500.0)
    assert bench.runtime.killed == []


def test_a_learner_is_not_killed_for_being_slow(bench: Bench) -> None:
    bench.supervisor.start(LEARNER)
    bench.supervisor.called(LEARNER, "update")
    bench.look(until=599.0)
    assert bench.runtime.killed == []


def test_a_learner_or_a_shard_that_keeps_everybody_waiting_is_named_once_and_when_it_is_back(bench: Bench) -> None:
    bench.supervisor.called(LEARNER, "update")
    bench.supervisor.called(Role("replay", 2), "report")
    bench.supervisor.called(Role("evaluator"), "evaluate")
    while bench.now < 100:
        bench.supervisor.watch()
        bench.now += 10
    assert bench.said == [
        "learner has not come back from update for 70 s",
        "replay 2 has not come back from report for 70 s",
    ], "an evaluation takes as long as its episodes"
    bench.supervisor.ended(LEARNER)
    assert bench.said[2:] == ["learner is back from update, after 100 s"]
    bench.supervisor.called(LEARNER, "update")
    bench.supervisor.ended(LEARNER)
    assert len(bench.said) == 3, "it was never missed"


def test_a_learner_that_starts_is_given_longer(bench: Bench) -> None:
    bench.supervisor.start(LEARNER)
    bench.supervisor.called(LEARNER, "restore")
    bench.look(until=179.0)
    assert bench.said == []
    bench.look(until=181.0)
    assert bench.said == ["learner has not come back from restore for 181 s"]


def test_an_evaluator_is_named_when_it_takes_very_long(bench: Bench) -> None:
    bench.supervisor.called(Role("evaluator"), "evaluate")
    bench.look(until=601.0)
    assert bench.said == ["evaluator has not come back from evaluate for 601 s"]


def test_a_collector_that_waits_for_a_shard_that_hangs_is_not_killed(bench: Bench) -> None:
    bench.supervisor.called(COLLECTOR, "collect")
    bench.supervisor.called(Role("replay"), "report")
    bench.look(until=300.0)
    assert bench.runtime.killed == []
    assert bench.said == ["replay 0 has not come back from report for 65 s"]
    with pytest.raises(UserError, match=r"waiting for collector 1 \(collect\), replay 0 \(report\)$"):
        bench.look(until=601.0)


def test_a_shard_that_hangs_is_given_up_once_the_run_is_to_stop(bench: Bench) -> None:
    bench.supervisor.called(Role("replay", 1), "report")
    bench.supervisor.called(LEARNER, "state")
    bench.look(until=40.0)
    bench.hurried = True
    bench.look(until=50.0)
    assert (bench.runtime.killed, bench.said) == ([], [])
    bench.look(until=55.0)
    assert bench.runtime.killed == [Role("replay", 1)]
    assert bench.said == [
        "replay 1 has not come back from report for 10 s: ending without it; what it had acknowledged stays stored"
    ]


def test_a_shard_that_waits_for_its_store_is_not_given_up(bench: Bench) -> None:
    bench.supervisor.called(Role("replay", 1), "report")
    bench.supervisor.excused = True
    bench.hurried = True
    bench.look(until=100.0)
    assert bench.runtime.killed == []


def test_nobody_is_named_for_the_time_in_which_all_wait_for_the_store(bench: Bench) -> None:
    bench.supervisor.called(LEARNER, "update")
    bench.supervisor.excused = True
    bench.look(until=100.0)
    bench.supervisor.excused = False
    bench.look(until=150.0)
    assert bench.said == []


def test_a_shard_that_ray_started_again_is_counted(bench: Bench) -> None:
    shard = Role("replay", 1)
    for process in ("first", "first", "second", "second", "third"):
        bench.supervisor.met(shard, process)
    bench.supervisor.met(Role("replay", 0), "another shard's")
    assert bench.supervisor.restarts == {"replay": 2}
    assert bench.said == ["replay 1 died and is back on its store"] * 2


def test_calls_in_this_process_are_never_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, slice_seconds=None)
    bench.supervisor.start(COLLECTOR)
    bench.supervisor.called(COLLECTOR, "collect")
    bench.look(until=599.0)
    assert bench.runtime.killed == []


def test_ten_minutes_without_progress_end_the_run_and_name_who_is_waited_for(bench: Bench) -> None:
    bench.supervisor.start(LEARNER)
    bench.look(until=300.0)
    bench.supervisor.progressed(COLLECTOR)
    bench.supervisor.called(LEARNER, "update")
    bench.look(until=899.0)
    with pytest.raises(UserError, match=r"^no progress for 10 minutes; waiting for learner \(update\)$"):
        bench.look(until=901.0)


def test_without_any_call_nobody_is_named(bench: Bench) -> None:
    with pytest.raises(UserError, match="waiting for nobody"):
        bench.look(until=601.0)


def test_a_role_without_a_place_is_not_called_nor_blamed_and_after_a_while_spoken_of_once(bench: Bench) -> None:
    bench.runtime.homeless = {COLLECTOR}
    bench.supervisor.start(COLLECTOR)
    while bench.now < 300:
        assert not bench.supervisor.alive(COLLECTOR)
        bench.supervisor.watch()
        bench.now += 10
    assert bench.runtime.killed == []
    assert bench.said == ["collector 1 waits for a node with room for it (ray status tells what there is)"]
    bench.runtime.homeless = set()
    assert bench.supervisor.alive(COLLECTOR)


def test_a_run_that_waits_for_a_place_alone_says_so_when_it_stops(bench: Bench) -> None:
    bench.runtime.homeless = {LEARNER}
    bench.supervisor.start(LEARNER)
    bench.supervisor.alive(LEARNER)
    with pytest.raises(UserError, match=r"learner \(no node has room for it\)"):
        bench.look(until=601)
