"""Determinism, saving and restoring, to the bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from common.config import Config
from learner.learner import Learner
from tests.learner.tiny import ACTIONS, random_batches, tiny_config
from tests.learner.tiny_learner import EVERY_CHOICE, assert_equal, make_learner, parameters


def test_the_same_seed_and_batches_give_the_same_parameters() -> None:
    first, second = make_learner(), make_learner()
    for learner in (first, second):
        learner.update(3)
    assert_equal(parameters(first), parameters(second))


def test_another_process_wide_random_state_changes_nothing() -> None:
    first = make_learner()
    first.update(2)
    torch.manual_seed(123)
    np.random.seed(123)
    second = make_learner()
    torch.rand(5)
    second.update(2)
    assert_equal(parameters(first), parameters(second))


@pytest.mark.parametrize(("seed", "data_seed"), [(1, 0), (0, 1)], ids=["seed", "batches"])
def test_another_seed_or_other_batches_give_other_parameters(seed: int, data_seed: int) -> None:
    first, second = make_learner(), make_learner(replace(tiny_config(), seed=seed), data_seed)
    for learner in (first, second):
        learner.update(1)
    name = "world_model.rssm.prior_input.weight"
    assert not torch.equal(parameters(first)[name], parameters(second)[name])


CONFIGS = EVERY_CHOICE | {
    "every option": tiny_config(world_model={"discount_head": True, "depth": 2}, dreamer={"value_target_every": 3})
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_saving_and_restoring_in_the_middle_changes_not_one_bit(config: Config) -> None:
    straight = make_learner(config)
    straight.update(4)

    before = make_learner(config)
    before.update(2)
    files = before.state()
    before.update(1)  # what is saved is a copy

    rest = islice(random_batches(), 2, None)
    after = Learner(replace(config, seed=99), ACTIONS, rest)
    after.restore(files)
    assert after.updates == 2
    after.update(2)
    assert after.updates == straight.updates == 4
    assert_equal(parameters(after), parameters(straight))
    assert after.state() == straight.state()


def test_a_learner_can_be_saved_before_its_first_update() -> None:
    straight, saved = make_learner(), make_learner()
    after = make_learner(replace(tiny_config(), seed=99))
    after.restore(saved.state())
    for learner in (straight, after):
        learner.update(2)
    assert_equal(parameters(after), parameters(straight))


def test_restoring_another_size_of_model_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        make_learner(tiny_config(world_model={"deter": 7})).restore(make_learner().state())
