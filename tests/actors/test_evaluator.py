"""The evaluator: whole episodes, no noise, rotated images, deterministic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.environment import PixelEnvironment
from actors.evaluator import ENVIRONMENTS_AT_ONCE, Evaluator
from actors.rotation import rotate
from actors.video import film, frames_per_second
from common.errors import EnvironmentFailedError
from tests import tiny
from tests.actors.scripted import Counting, ScriptedPolicy, config

TINY = config(task="tests.tiny:make")
WEIGHTS = {"bias": np.array(0.5)}


class Seeing(ScriptedPolicy):
    """Goes to the green band: what an agent that learned `tests.tiny` does."""

    def act(self, image: Any, *args: Any, **options: Any) -> Any:
        _, state = super().act(image, *args, **options)
        red = (image[..., 0] > 150) & (image[..., 1] < 120)
        green = (image[..., 1] > 150) & (image[..., 0] < 120)
        columns = np.arange(64)
        apart = [columns[g.any(0)].mean() - columns[r.any(0)].mean() for g, r in zip(green, red, strict=True)]
        return (np.array(apart)[:, None] / 8).clip(-1, 1).astype(np.float32), state


@pytest.fixture
def evaluator() -> Any:
    opened: list[Evaluator] = []

    def build(settings: Any = TINY, policy: Any = None, **options: Any) -> Evaluator:
        opened.append(Evaluator(settings, policy or ScriptedPolicy(1), **options))
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def test_policy_that_looks_gets_near_the_best_return(evaluator: Any) -> None:
    report = evaluator(policy=Seeing(1)).evaluate(3, WEIGHTS, episodes=12)
    assert np.mean(report.returns) > 0.8 * tiny.BEST_RETURN
    assert report.weights_version == 3
    assert report.wall_seconds > 0


def test_version_zero_acts_uniformly_at_random(evaluator: Any) -> None:
    policy = ScriptedPolicy(1)
    report = evaluator(policy=policy).evaluate(0, None, episodes=30)
    assert policy.calls == []
    assert policy.weights == []
    assert np.mean(report.returns) == pytest.approx(tiny.RANDOM_RETURN, abs=3.5)


def test_mode_of_the_named_weights_acts(evaluator: Any) -> None:
    policy = ScriptedPolicy(1)
    evaluator(policy=policy).evaluate(2, WEIGHTS, episodes=2)
    assert policy.weights == [0.5]
    assert not any(call["training"] for call in policy.calls)
    assert [call["is_first"].tolist() for call in policy.calls[:2]] == [[True, True], [False, False]]
    assert len(policy.calls) == tiny.EPISODE_STEPS


def test_weights_may_be_those_the_policy_has(evaluator: Any) -> None:
    policy = ScriptedPolicy(1)
    evaluator(policy=policy).evaluate(2, None, episodes=1)
    assert policy.weights == []
    assert len(policy.calls) == tiny.EPISODE_STEPS


def test_same_arguments_give_the_same_returns_and_another_seed_others(evaluator: Any) -> None:
    one = evaluator()
    options = {"episodes": 3, "rotation_degrees": 5.0}
    first = one.evaluate(1, WEIGHTS, **options).returns
    assert first == one.evaluate(1, WEIGHTS, **options).returns
    assert first != one.evaluate(1, WEIGHTS, **options, seed=1).returns
    assert one.evaluate(0, None, **options).returns == one.evaluate(0, None, **options).returns


def test_episodes_have_seeds_of_their_own(evaluator: Any) -> None:
    count = ENVIRONMENTS_AT_ONCE + 2
    report = evaluator().evaluate(1, WEIGHTS, episodes=count, record=count)
    assert len(report.returns) == len(report.frames) == count
    assert len({frames[0].tobytes() for frames in report.frames}) == count


def test_first_episodes_are_recorded_as_the_policy_saw_them(evaluator: Any) -> None:
    policy = ScriptedPolicy(1)
    report = evaluator(policy=policy).evaluate(1, WEIGHTS, episodes=3, rotation_degrees=30.0, record=2)
    assert [frames.shape for frames in report.frames] == [(tiny.EPISODE_STEPS, 64, 64, 3)] * 2
    for index, frames in enumerate(report.frames):
        assert frames[:, 0, 0, 0].tolist() == [call["pixel"][index] for call in policy.calls]


def test_recorded_episodes_come_back_as_a_film_where_that_is_asked(evaluator: Any) -> None:
    frames = evaluator().evaluate(1, WEIGHTS, episodes=3, record=2).frames
    report = evaluator().evaluate(1, WEIGHTS, episodes=3, record=2, encode=True)
    assert report.frames == []
    assert report.film == film(frames, fps=frames_per_second(config().environment))
    assert evaluator().evaluate(1, WEIGHTS, episodes=3, encode=True).film is None


def test_nothing_is_recorded_unless_asked(evaluator: Any) -> None:
    assert evaluator().evaluate(1, WEIGHTS, episodes=2).frames == []


def patterned(seen: list[float], degrees: float, per_episode: bool, evaluator: Any) -> list[np.ndarray]:
    pattern = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    class Patterned(Counting):
        def image(self) -> np.ndarray:
            return pattern

    def make(*_: Any) -> PixelEnvironment:
        return PixelEnvironment(Patterned(length=30), 1, 1000)

    report = evaluator(config(), ScriptedPolicy(2), make=make).evaluate(
        1, WEIGHTS, 1, rotation_degrees=degrees, rotation_per_episode=per_episode, record=1
    )
    angles = np.linspace(-degrees, degrees, 401) if degrees else np.zeros(1)
    candidates = np.stack([rotate(pattern, angle) for angle in angles]).astype(np.float32)
    for frame in report.frames[0]:
        error = np.abs(candidates - frame).mean((1, 2, 3))
        assert error.min() < 2
        seen.append(float(angles[error.argmin()]))
    return list(report.frames[0])


def test_images_are_rotated_by_a_new_angle_for_every_frame(evaluator: Any) -> None:
    angles: list[float] = []
    patterned(angles, 5.0, False, evaluator)
    assert len(angles) == 30
    assert min(angles) < -2.5
    assert max(angles) > 2.5
    assert len(set(angles)) > 20


def test_images_are_rotated_by_one_angle_an_episode_where_asked(evaluator: Any) -> None:
    angles: list[float] = []
    frames = patterned(angles, 5.0, True, evaluator)
    assert len(set(angles)) == 1
    assert angles[0] != 0
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_no_rotation_leaves_images_untouched(evaluator: Any) -> None:
    frames = patterned([], 0.0, False, evaluator)
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_episodes_may_end_at_different_times(evaluator: Any) -> None:
    lengths = iter([3, 7, 5])
    built: list[Counting] = []

    def make(*_: Any) -> PixelEnvironment:
        built.append(Counting(length=next(lengths)))
        return PixelEnvironment(built[-1], 1, 1000)

    report = evaluator(config(), ScriptedPolicy(2), make=make).evaluate(1, WEIGHTS, episodes=3, record=3)
    assert [source.total_steps for source in built] == [3, 7, 5]
    assert [source.resets for source in built] == [1, 1, 1]
    assert [len(frames) for frames in report.frames] == [3, 7, 5]
    np.testing.assert_allclose(report.returns, [sum(range(n)) / 255 for n in (3, 7, 5)], atol=0.05)
    assert all(source.closed for source in built)


def test_dm_control_is_evaluated_at_our_time_limit(evaluator: Any) -> None:
    settings = config(task="cartpole_balance", action_repeat=4, time_limit=20)
    settings = replace(settings, environment=replace(settings.environment, rendering="fast"))
    first = evaluator(settings).evaluate(1, WEIGHTS, episodes=2, record=2)
    assert [frames.shape for frames in first.frames] == [(5, 64, 64, 3)] * 2
    assert first.frames[0].std() > 5
    assert first.returns == evaluator(settings).evaluate(1, WEIGHTS, episodes=2).returns


class Breaking(tiny.Tiny):
    """Raises in the middle of its first episode, as often as it is told to."""

    failures = 0

    def step(self, action: Any) -> Any:
        if Breaking.failures and self._steps == 5:
            Breaking.failures -= 1
            raise RuntimeError("lost the GL context")
        return super().step(action)


def breaking(task: str, settings: Any, seed: int) -> PixelEnvironment:
    return PixelEnvironment(Breaking(seed), settings.action_repeat, settings.time_limit)


def test_an_environment_that_raises_has_its_episodes_played_anew(evaluator: Any) -> None:
    Breaking.failures = 0
    whole = evaluator(policy=Seeing(1), make=breaking).evaluate(3, WEIGHTS, episodes=3, rotation_degrees=5.0)
    Breaking.failures = 2
    again = evaluator(policy=Seeing(1), make=breaking).evaluate(3, WEIGHTS, episodes=3, rotation_degrees=5.0)
    assert again.returns == whole.returns


def test_an_environment_that_keeps_raising_ends_the_evaluation(evaluator: Any) -> None:
    Breaking.failures = 1000
    with pytest.raises(EnvironmentFailedError, match="lost the GL context"):
        evaluator(policy=Seeing(1), make=breaking).evaluate(3, WEIGHTS, episodes=3)
