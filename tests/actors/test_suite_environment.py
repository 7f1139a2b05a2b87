"""Real DMControl tasks: the picture, the camera, determinism, closing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from dm_control import suite

from actors.environment import PixelEnvironment, make_environment
from actors.suite import SuiteSource
from common.config import EnvironmentConfig

FAST = EnvironmentConfig(rendering="fast", action_repeat=2)

IDENTITY = """
import sys
import numpy as np
from actors.rendering import configure
configure(sys.argv[1])
from dm_control import suite
from actors.suite import SuiteSource

for domain, task, camera in [("cheetah", "run", 0), ("quadruped", "walk", 2)]:
    reference = suite.load(domain, task, task_kwargs={"random": np.random.RandomState(np.random.MT19937(3))})
    source = SuiteSource(f"{domain}_{task}", "full", seed=3)
    reference.reset(), source.reset()
    for step in range(4):
        expected = reference.physics.render(64, 64, camera_id=camera)
        assert expected.std() > 5
        assert np.array_equal(source.image(), expected), (task, step)
        action = np.full(source.action_spec().shape, 0.5 - 0.3 * step)
        reference.step(action), source.step(action)
    source.close()
    reference.physics.free()
"""


def play(environment: PixelEnvironment, steps: int) -> tuple[np.ndarray, list[float]]:
    random = np.random.default_rng(0)
    images, rewards = [environment.reset().observation["image"]], []
    for _ in range(steps):
        time_step = environment.step(random.uniform(-1, 1, environment.action_spec().shape))
        images.append(time_step.observation["image"])
        rewards.append(time_step.reward)
    return np.stack(images), rewards


@pytest.mark.parametrize("gl", ["egl", "osmesa"])
def test_full_picture_is_dm_controls_own_bit_for_bit(gl: str) -> None:
    subprocess.run([sys.executable, "-c", IDENTITY, gl], check=True, timeout=600)


def test_fast_picture_is_of_the_same_scene() -> None:
    with make_environment("cheetah_run", replace(FAST, rendering="full"), 0) as environment:
        full, rewards = play(environment, 3)
    with make_environment("cheetah_run", FAST, 0) as environment:
        fast, fast_rewards = play(environment, 3)
    assert rewards == fast_rewards
    assert (full != fast).any()
    assert np.abs(full.astype(int) - fast).mean() < 20


def test_quadruped_is_seen_by_camera_two_and_others_by_camera_zero() -> None:
    for task, camera in [("quadruped_walk", 2), ("cartpole_balance", 0)]:
        source = SuiteSource(task, "fast", 0)
        source.reset()
        assert source._camera._render_camera.fixedcamid == camera
        source.close()


def test_images_of_successive_steps_do_not_share_memory() -> None:
    with make_environment("cartpole_swingup", FAST, 0) as environment:
        first = environment.reset().observation["image"]
        before = first.copy()
        for _ in range(20):
            last = environment.step([1.0]).observation["image"]
    assert np.array_equal(first, before)
    assert (first != last).any()
    assert first.flags.c_contiguous


def test_same_seed_gives_the_same_episodes_and_another_seed_others() -> None:
    def images(seed: int) -> np.ndarray:
        with make_environment("cheetah_run", FAST, seed) as environment:
            return np.concatenate([play(environment, 5)[0], play(environment, 2)[0]])

    first = images(2**62 + 1)
    assert np.array_equal(first, images(2**62 + 1))
    assert (first != images(7)).any()


def test_environments_side_by_side_do_not_disturb_each_other() -> None:
    with make_environment("cheetah_run", FAST, 0) as alone:
        expected, _ = play(alone, 5)
    with make_environment("cheetah_run", FAST, 0) as one, make_environment("cartpole_balance", FAST, 0) as other:
        random = np.random.default_rng(0)
        other.reset()
        images = [one.reset().observation["image"]]
        for _ in range(5):
            other.step([1.0])
            images.append(one.step(random.uniform(-1, 1, 6)).observation["image"])
    assert np.array_equal(expected, images)


def test_task_without_a_limit_of_its_own_ends_at_ours() -> None:
    with make_environment("lqr_lqr_2_1", replace(FAST, time_limit=7), 0) as environment:
        environment.reset()
        time_steps = [environment.step([0.1]) for _ in range(4)]
    assert [t.last() for t in time_steps] == [False, False, False, True]
    assert time_steps[-1].discount == 1.0
    assert np.isfinite([t.reward for t in time_steps]).all()


def test_rewards_and_physics_are_the_suites_own() -> None:
    reference = suite.load("cartpole", "swingup", task_kwargs={"random": np.random.RandomState(np.random.MT19937(5))})
    reference.reset()
    with make_environment("cartpole_swingup", replace(FAST, action_repeat=3), 5) as environment:
        environment.reset()
        for action in (0.3, -1.0, 0.8):
            expected = sum(reference.step([action]).reward for _ in range(3))
            assert environment.step([action]).reward == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ending", ["e.close(); e.close()", "pass"])
def test_process_ends_without_a_word(ending: str) -> None:
    program = (
        "from actors.environment import make_environment\n"
        "from common.config import EnvironmentConfig\n"
        "e = make_environment('walker_walk', EnvironmentConfig(rendering='fast'), 0)\n"
        "e.reset(); e.step([0.0] * 6)\n"
        f"{ending}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True)
    assert done.stderr == ""
