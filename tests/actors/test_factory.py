"""`package.module:factory`: any dm_env environment, and one clear line for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dm_env import specs

from actors.environment import make_environment
from common.config import EnvironmentConfig
from common.errors import UserError
from tests.actors.scripted import Counting

CONFIG = EnvironmentConfig(action_repeat=1)
HERE = "tests.actors.test_factory"

not_callable = 3


def seeded(seed: int) -> Counting:
    return Counting(seed)


def seedless() -> Counting:
    return Counting(observe=lambda image: {"pixels": image, "position": np.zeros(3)})


def keywords(**options: Any) -> Counting:
    return Counting(observe=lambda image: image, **options)


def large_image() -> Counting:
    return Counting(observe=lambda image: np.zeros((84, 84, 3), np.uint8))


def float_image() -> Counting:
    return Counting(observe=lambda image: image / 255.0)


def no_image() -> Counting:
    return Counting(observe=lambda image: {"position": image})


def discrete() -> Counting:
    return Counting(spec=specs.DiscreteArray(3))


def no_environment() -> str:
    return "gym"


@pytest.mark.parametrize("name", ["seeded", "seedless", "keywords"])
def test_image_may_be_the_observation_or_under_image_or_pixels(name: str) -> None:
    environment = make_environment(f"{HERE}:{name}", CONFIG, seed=1)
    assert environment.reset().observation["image"].shape == (64, 64, 3)
    assert environment.step([0.0, 0.0]).observation["image"][0, 0, 0] == 1


@pytest.mark.parametrize("name", ["seeded", "keywords"])
def test_seed_reaches_a_factory_that_takes_one_in_32_bits(name: str) -> None:
    environment = make_environment(f"{HERE}:{name}", CONFIG, seed=5 + 2**40)
    assert environment._source._environment.seed == 5  # type: ignore[attr-defined]  # behind the dm_env interface


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("no_such_module:make", "cannot import 'no_such_module': ModuleNotFoundError"),
        (f"{HERE}:missing", "has no callable 'missing'"),
        (f"{HERE}:not_callable", "has no callable 'not_callable'"),
        (f"{HERE}:discrete", "actions must be one row of floats"),
        (f"{HERE}:no_environment", "returned str, no dm_env.Environment"),
        (f"{HERE}:large_image", r"images must be uint8 \(64, 64, 3\), not uint8 \(84, 84, 3\)"),
        (f"{HERE}:float_image", "not float64"),
        (f"{HERE}:no_image", "not NoneType"),
    ],
)
def test_what_is_no_such_factory_is_told_in_one_line(task: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        make_environment(task, CONFIG, seed=0).reset()
    assert "\n" not in str(error.value)


def test_modules_of_the_current_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_task.py").write_text("from tests.tiny import make\n")
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    monkeypatch.chdir(tmp_path)
    assert make_environment("my_task:make", CONFIG, seed=0).reset().first()


def test_images_are_copies() -> None:
    shared = np.zeros((64, 64, 3), np.uint8)
    source = Counting(observe=lambda image: shared)
    from actors.factory import FactorySource

    wrapped = FactorySource(f"{HERE}:seeded", 0)
    wrapped._environment = source
    wrapped.reset()
    image = wrapped.image()
    shared[:] = 9
    assert image.max() == 0
