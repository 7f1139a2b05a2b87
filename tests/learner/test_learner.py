from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from common.config import Config
from common.errors import NoWindowsError
from common.sequence import Rows
from learner.batch import Batch
from learner.feed import Feed
from learner.learner import Learner
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_batches, random_rows, tiny_config
from tests.learner.tiny_learner import assert_equal, make_learner, parameters

CPU = torch.device("cpu")
TRAINED_BY = {"model": "world_model.", "actor": "behavior.acting.", "value": "behavior.value."}


def with_rates(**rates: float) -> Config:
    """Learning rates by loss; those not named are zero."""
    return tiny_config(
        world_model={"learning_rate": rates.get("model", 0.0)},
        dreamer={
            "actor_learning_rate": rates.get("actor", 0.0),
            "value_learning_rate": rates.get("value", 0.0),
        },
    )


@pytest.mark.parametrize("loss", TRAINED_BY)
def test_an_update_by_one_loss_changes_exactly_its_own_parameters(loss: str) -> None:
    learner = make_learner(with_rates(**{loss: 1e-3}))
    before = parameters(learner)
    learner.update(1)
    changed = {name for name, value in parameters(learner).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith(TRAINED_BY[loss])}
    assert changed


@pytest.mark.parametrize("loss", TRAINED_BY)
def test_every_loss_is_taken_with_the_parameters_from_before_the_update(loss: str) -> None:
    """So one loss's step is the same, bit for bit, whether or not the others step too."""
    alone = make_learner(with_rates(**{loss: 1e-3}))
    together = make_learner(with_rates(model=1e-3, actor=1e-3, value=1e-3))
    alone.update(1)
    together.update(1)
    assert_equal(parameters(alone), parameters(together), TRAINED_BY[loss])


@pytest.mark.parametrize(
    ("loss", "reaches", "untouched"),
    [
        ("model", ["encoder", "rssm", "objective.decoder", "reward"], ["behavior."]),
        ("value", [], ["world_model.", "behavior.acting."]),
        ("actor", [], ["world_model.encoder.", "world_model.objective."]),
    ],
)
def test_gradients_reach_what_a_loss_may_teach_and_nothing_behind_a_stop(
    loss: str, reaches: list[str], untouched: list[str]
) -> None:
    learner = make_learner()
    batch = Batch.from_rows(random_rows(0), CPU)
    losses, *_ = learner.losses(batch, learner.draw_noise(BATCH, LENGTH))
    named = dict(learner.modules.named_parameters())
    gradients = torch.autograd.grad(losses[loss], list(named.values()), allow_unused=True)
    reached = {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None and gradient.any()}
    assert reached >= {name for name in named if name.startswith(TRAINED_BY[loss])}
    for part in reaches:
        assert any(name.startswith(f"world_model.{part}.") for name in reached), part
    assert [name for name in reached if name.startswith(tuple(untouched))] == []


def test_an_update_without_anything_to_draw_ends_early_and_goes_on_later() -> None:
    learner, rows = make_learner(), random_rows(0)
    learner.feed = Feed(Mock(__next__=Mock(side_effect=[NoWindowsError(), rows, NoWindowsError(), rows, rows])), CPU)
    reports = [learner.update(count) for count in (3, 3, 2)]
    assert [report.updates for report in reports] == [0, 1, 2]
    assert learner.updates == 3
    assert reports[0].metrics == {}
    assert reports[1].metrics.keys() == reports[2].metrics.keys() != set()


def test_no_gradient_is_left_behind_by_an_update() -> None:
    learner = make_learner()
    learner.update(1)
    assert all(parameter.grad is None for parameter in learner.modules.parameters())


def test_noise_is_fresh_for_every_update_and_of_the_promised_shapes() -> None:
    learner = make_learner()
    first, second = learner.draw_noise(BATCH, LENGTH), learner.draw_noise(BATCH, LENGTH)
    sizes, horizon = learner.config.world_model, learner.config.horizon
    assert {name: tuple(noise.shape) for name, noise in first.items()} == {
        "posterior": (LENGTH, BATCH, sizes.stoch),
        "prior": (horizon, LENGTH * BATCH, sizes.stoch),
        "action": (horizon, LENGTH * BATCH, ACTIONS),
    }
    for name in first:
        assert not torch.equal(first[name], second[name])


def test_what_is_reported_are_the_means_over_the_calls_updates() -> None:
    together, apart = make_learner(), make_learner()
    report = together.update(3)
    singles = [apart.update(1).metrics for _ in range(3)]
    assert report.updates == 3
    assert report.metrics.keys() == singles[0].keys()
    for name, value in report.metrics.items():
        np.testing.assert_allclose(value, np.mean([single[name] for single in singles]), rtol=1e-5, err_msg=name)
    expected = {"model_loss", "image_loss", "reward_loss", "kl", "actor_loss", "value_loss"}
    assert expected <= report.metrics.keys()


def test_time_spent_waiting_for_batches_is_no_update_time() -> None:
    def slow_batches() -> Iterator[Rows]:
        for rows in random_batches():
            time.sleep(0.05)
            yield rows

    learner = Learner(tiny_config(), ACTIONS, slow_batches())
    begin = time.perf_counter()
    report = learner.update(2)
    elapsed = time.perf_counter() - begin
    assert report.batch_wait_seconds >= 0.1
    assert 0.0 < report.update_seconds <= elapsed - report.batch_wait_seconds


def test_learning_on_one_bright_batch_lowers_its_image_and_reward_loss() -> None:
    rows = random_rows(0)
    bright = replace(rows, image=np.full_like(rows.image, 230))  # 988 nats above the best, at first
    learner = Learner(tiny_config(world_model={"learning_rate": 3e-3}), ACTIONS, iter([bright] * 60))
    first = learner.update(1).metrics
    learner.update(58)
    last = learner.update(1).metrics
    assert last["image_loss"] < first["image_loss"] - 500.0
    assert last["reward_loss"] < first["reward_loss"] - 0.1


def test_the_reconstruction_strip_shows_truth_model_and_difference_of_the_newest_batch() -> None:
    rows = random_rows(7)
    learner = Learner(tiny_config(), ACTIONS, iter([random_rows(0), rows]))
    assert learner.reconstruction_strip() is None
    learner.update(2)
    strip = learner.reconstruction_strip(columns=2)
    assert strip is not None
    assert strip.dtype == np.uint8
    assert strip.shape == (3 * 64, 2 * 64, 3)
    truth, model, difference = (band.astype(float) for band in np.split(strip, 3))
    np.testing.assert_array_equal(truth[:, :64], rows.image[0, 0])
    np.testing.assert_array_equal(truth[:, 64:], rows.image[0, -1])
    np.testing.assert_allclose(difference, (model - truth + 255) / 2, atol=1.5)


def test_drawing_a_strip_changes_nothing_that_is_learnt() -> None:
    plain, drawing = make_learner(), make_learner()
    for _ in range(2):
        plain.update(1)
        drawing.update(1)
        drawing.reconstruction_strip()
    assert_equal(parameters(plain), parameters(drawing))


def test_the_value_target_follows_after_so_many_updates_of_the_learner() -> None:
    learner = make_learner(tiny_config(dreamer={"value_target_every": 2}))
    follows = []
    for _ in range(4):
        learner.update(1)
        now = parameters(learner)
        value = {name: tensor for name, tensor in now.items() if name.startswith("behavior.value.")}
        follows.append(
            all(torch.equal(tensor, now[name.replace("value", "value_target", 1)]) for name, tensor in value.items())
        )
    assert follows == [False, True, False, True]


@pytest.mark.parametrize(("seconds", "done"), [(0.0, 1), (3600.0, 3)])
def test_an_update_call_ends_with_its_time_but_never_before_one_update(seconds: float, done: int) -> None:
    learner = make_learner()
    report = learner.update(3, seconds=seconds)
    assert report.updates == learner.updates == done
    alone = make_learner()
    expected = alone.update(done).metrics
    assert report.metrics == expected


def test_divergence_is_an_error_that_names_what_is_not_finite() -> None:
    rows = random_rows(0)
    learner = Learner(tiny_config(), ACTIONS, iter([replace(rows, reward=np.full_like(rows.reward, np.inf))]))
    with pytest.raises(FloatingPointError, match="reward_loss"):
        learner.update(1)
