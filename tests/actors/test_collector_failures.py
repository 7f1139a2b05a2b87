"""The collector when environments raise, hang or cannot be built, and when the policy or the sink misbehaves."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.collector import Collector
from actors.environment import PixelEnvironment, make_environment
from common.errors import EnvironmentFailedError, UserError
from tests.actors.scripted import NOT_ZERO, Counting, ListSink, ScriptedPolicy, collector, config


def test_environment_that_raises_is_built_anew_and_its_episode_ends_at_its_last_sent_row() -> None:
    sink, policy = ListSink(), ScriptedPolicy()
    actor = collector(config(environments=1, chunk_rows=4), sink, policy, length=100, fails_at=10)
    actor.set_weights(1, NOT_ZERO)
    report = actor.collect(25)
    assert report.environment_failures == 2
    assert report.stepped == 23
    assert report.episodes == []
    episodes = sink.episodes()
    assert [number for _, number in episodes] == [0, 1, 2][: len(episodes)]
    assert len(episodes) >= 2
    for rows in episodes.values():
        assert rows.image[:, 0, 0, 0].tolist() == list(range(len(rows)))
    assert not any(chunk.is_last for chunk in sink.chunks)
    # The policy's filter starts anew with the new environment's first image.
    assert [t for t, call in enumerate(policy.calls) if call["is_first"][0]] == [0, 11, 22]


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf, 1e39])
def test_environment_whose_reward_is_not_finite_is_built_anew_and_no_such_reward_is_sent(reward: float) -> None:
    sink = ListSink()
    actor = collector(config(environments=1, chunk_rows=1), sink, length=100, bad_reward=(10, reward))
    report = actor.collect(25)
    assert (report.environment_failures, report.stepped) == (2, 23)
    assert len(sink.chunks) == 23
    assert all(np.isfinite(chunk.rows.reward).all() for chunk in sink.chunks)


def test_failing_environment_leaves_the_others_alone() -> None:
    built: list[int] = []

    def make(task: str, environment_config: Any, seed: int) -> PixelEnvironment:
        fails_at = 5 if len(built) == 1 else None
        built.append(seed)
        return PixelEnvironment(Counting(seed, length=12, fails_at=fails_at), 1, 1000)

    sink = ListSink()
    actor = Collector(config(environments=3, chunk_rows=2), 0, 0, sink, ScriptedPolicy(), make)
    report = actor.collect(3 * 24)
    assert report.environment_failures == 1
    assert len(set(built)) == len(built) == 4
    finished = [key.environment for (key, _), rows in sink.episodes().items() if len(rows) == 13]
    assert sorted(finished) == [0, 0, 1, 2, 2]
    assert len(report.episodes) == 5


def test_environment_whose_reset_raises_is_built_anew_after_its_finished_episode() -> None:
    sink = ListSink()
    actor = collector(config(environments=1, chunk_rows=4), sink, length=6, fails_at_reset=2)
    report = actor.collect(12)
    assert report.environment_failures == 2
    assert len(report.episodes) == 2
    assert [len(rows) for rows in sink.episodes().values()] == [7, 7]


def test_environment_that_always_fails_does_not_keep_the_call_for_ever() -> None:
    report = collector(config(environments=1), fails_at=0).collect(20)
    assert (report.stepped, report.environment_failures) == (0, 20)


def test_environment_that_cannot_be_built_raises() -> None:
    with pytest.raises(UserError, match="has no callable 'missing'"):
        Collector(config(task="tests.tiny:missing"), 0, 0, ListSink(), ScriptedPolicy(), make_environment)


@pytest.mark.parametrize("works", [0, 1], ids=["at first", "anew"])
def test_environment_that_no_process_like_this_can_build_is_named(works: int) -> None:
    built: list[int] = []

    def make(task: str, environment_config: Any, seed: int) -> PixelEnvironment:
        built.append(seed)
        if len(built) > works:
            raise RuntimeError("no OpenGL context")
        return PixelEnvironment(Counting(seed, length=12, fails_at=5), 1, 1000)

    with pytest.raises(EnvironmentFailedError, match=r"environment 0 cannot be built: RuntimeError.*no OpenGL context"):
        Collector(config(environments=1), 0, 0, ListSink(), ScriptedPolicy(), make).collect(24)
    assert len(built) == works + 1


def test_actions_that_are_not_finite_raise_instead_of_rebuilding() -> None:
    class Diverged(ScriptedPolicy):
        def act(self, image: Any, *args: Any, **options: Any) -> Any:
            return np.full((len(image), 2), np.nan, np.float32), None

    actor = collector(config(), policy=Diverged())
    actor.set_weights(4, NOT_ZERO)
    with pytest.raises(ValueError, match="not finite with weights version 4"):
        actor.collect(10)


def test_waiting_for_the_sink_is_counted_and_is_no_hang() -> None:
    class Slow(ListSink):
        def flush(self) -> int:
            time.sleep(2.5)
            return super().flush()

    settings = config(environments=1)
    settings = replace(settings, environment=replace(settings.environment, hang_seconds=2.0))
    report = collector(settings, Slow()).collect(20)
    assert report.insert_wait_seconds >= 2.5
    assert report.inserted > 0
    assert report.usage.resident_bytes > 10**7


HANGS = """
import time, sys
from dataclasses import replace
from actors.collector import Collector
from tests.actors.scripted import Counting, ListSink, ScriptedPolicy, config

class Hanging(Counting):
    def step(self, action):
        if self.total_steps == 3:
            time.sleep(3600)
        return super().step(action)

settings = config(environments=1)
settings = replace(settings, environment=replace(settings.environment, hang_seconds=0.5))
Collector(settings, 0, 0, ListSink(), ScriptedPolicy(), lambda *_: Hanging()).collect(10)
"""


def test_environment_that_hangs_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("an environment hung for more than 0.5 s")
