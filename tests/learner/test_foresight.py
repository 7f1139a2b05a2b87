"""Open-loop prediction and what it is held against, step by step in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from learner.batch import Batch
from learner.distributions import LOG_2PI
from learner.foresight import (
    draw,
    expected_log_density,
    foresee,
    image_error,
    log_density,
    look_then_foresee,
    observe,
)
from learner.pictures import normalise
from learner.world_model import WorldModel
from learner.world_model.kl import gaussian_kl
from learner.world_model.state import State
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_rows, randomise, tiny_config


@pytest.fixture(name="model")
def make_model() -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(tiny_config(), ACTIONS)
    randomise(model, size=0.2)
    return model.requires_grad_(False)


@pytest.fixture(name="batch")
def make_batch() -> Batch:
    return Batch.from_rows(random_rows(3), torch.device("cpu"))


@pytest.fixture(name="noise")
def make_noise() -> torch.Tensor:
    return torch.randn(LENGTH, BATCH, 4, generator=torch.Generator().manual_seed(1))


def assert_close(a: State, b: State) -> None:
    for name, x, y in zip(State._fields, a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6, msg=name)


def test_observing_is_the_filter_of_the_models_own_loss(model: WorldModel, batch: Batch, noise: torch.Tensor) -> None:
    posterior, _ = observe(model, batch, noise)
    assert_close(posterior, model.loss(batch, noise).posterior)


def test_with_the_whole_sequence_as_context_nothing_is_predicted(
    model: WorldModel, batch: Batch, noise: torch.Tensor
) -> None:
    assert_close(look_then_foresee(model, batch, LENGTH, noise), observe(model, batch, noise)[0])


@pytest.mark.parametrize("context", [1, 2, LENGTH - 1])
def test_after_the_context_come_prior_steps_one_by_one(
    model: WorldModel, batch: Batch, noise: torch.Tensor, context: int
) -> None:
    expected = []
    state = model.rssm.initial(BATCH)
    for row in range(LENGTH):
        keep = (~batch.is_first[:, row]).float().unsqueeze(-1)
        state = state.map(lambda part, keep=keep: part * keep)
        state = model.rssm.prior_step(state, batch.action[:, row] * keep, noise[row])
        if row < context:
            state = model.rssm.posterior_step(state, model.encoder(normalise(batch.image[:, row])), noise[row])
        expected.append(state)
    found = look_then_foresee(model, batch, context, noise)
    assert_close(found, State(*(torch.stack(parts) for parts in zip(*expected, strict=True))))


def test_predictions_do_not_depend_on_images_after_the_context(
    model: WorldModel, batch: Batch, noise: torch.Tensor
) -> None:
    image = batch.image.clone()
    image[:, 2:] = 0
    other = batch._replace(image=image)
    assert_close(look_then_foresee(model, batch, 2, noise), look_then_foresee(model, other, 2, noise))


def test_densities_are_the_normals(noise: torch.Tensor) -> None:
    random = np.random.default_rng(0)
    mean, std, value = random.normal(size=(5, 4)), random.uniform(0.1, 2, (5, 4)), random.normal(size=(5, 4))
    state = State(torch.zeros(5, 6), *(torch.from_numpy(part) for part in (mean, std, value)))
    expected = stats.norm.logpdf(value, mean, std).sum(1)
    np.testing.assert_allclose(log_density(state.stoch, state), expected, rtol=1e-12)
    np.testing.assert_allclose(expected_log_density(state), -stats.norm.entropy(mean, std).sum(1), rtol=1e-12)


def test_the_expected_density_is_the_mean_over_samples() -> None:
    std = torch.tensor([[0.3, 1.2]], dtype=torch.float64)
    state = State(torch.zeros(1, 1), torch.ones_like(std), std, std)
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampled = log_density(state.mean + std * noise, state).mean()
    assert sampled.item() == pytest.approx(expected_log_density(state).item(), abs=0.01)
    assert expected_log_density(state).item() == pytest.approx(-std.log().sum().item() - 1 - LOG_2PI)


def test_an_image_error_is_the_kl_of_unit_normals() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 64, 64, 3))
    expected = [0.5 * sum((x - y) ** 2 for x, y in zip(p.flat, q.flat, strict=True)) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(image_error(torch.from_numpy(a), torch.from_numpy(b)), expected, rtol=1e-10)


def test_drawn_images_have_their_channels_last_and_the_features_leading_shape(model: WorldModel) -> None:
    feature = torch.randn(300, 2, model.rssm.feature_size)
    drawn = draw(model, feature)
    assert drawn is not None
    assert drawn.shape == (300, 2, 64, 64, 3)
    alone = model.objective.draw(feature[299, 1:])
    assert alone is not None
    torch.testing.assert_close(drawn[299, 1], alone[0].permute(1, 2, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["contrastive", "reward_only"])
def test_where_no_images_are_drawn_there_is_no_image_error(objective: str, batch: Batch, noise: torch.Tensor) -> None:
    from dataclasses import replace

    model = WorldModel(replace(tiny_config(), objective=objective), ACTIONS)
    posterior = observe(model, batch, noise)[0].map(lambda part: part[:, 0])
    assert draw(model, posterior.feature) is None
    found = foresee(model, posterior, batch.action[0], batch.image[0], torch.tensor([0]), noise[:2, :1])
    assert found.image_error is None
    assert found.kl.shape == (2, 1)


def test_foresight_is_held_against_the_rows_that_it_speaks_of(
    model: WorldModel, batch: Batch, noise: torch.Tensor
) -> None:
    posterior = observe(model, batch, noise)[0].map(lambda part: part[:, 0])  # (L, …)
    action, image = batch.action[0], batch.image[0]
    starts, steps = [0, 1], 2
    sampling = torch.randn(steps, len(starts), 4, generator=torch.Generator().manual_seed(7))
    found = foresee(model, posterior, action, image, torch.tensor(starts), sampling)
    for column, start in enumerate(starts):
        state = posterior.map(lambda part, start=start: part[start : start + 1])
        for step in range(steps):
            row = start + 1 + step
            state = model.rssm.prior_step(state, action[row : row + 1], sampling[step, column : column + 1])
            came = posterior.map(lambda part, row=row: part[row : row + 1])
            drawn = model.objective.draw(state.feature)
            assert drawn is not None
            assert found.image_error is not None
            expected = {
                "sample_density": stats.norm.logpdf(state.stoch, state.mean, state.std).sum(),
                "expected_density": -stats.norm.entropy(state.mean, state.std).sum(),
                "posterior_density": stats.norm.logpdf(came.stoch, state.mean, state.std).sum(),
                "kl": gaussian_kl(came, state).item(),
                "image_error": 0.5 * (drawn - normalise(image[row : row + 1])).square().sum().item(),
            }
            for name, value in expected.items():
                assert getattr(found, name)[step, column].item() == pytest.approx(value, rel=1e-4), name
