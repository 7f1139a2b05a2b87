"""The whole model loss, from uint8 images to nats, and its gradient, against the float64 reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from learner.batch import Batch
from learner.world_model import WorldModel
from tests.learner.reference import losses as reference
from tests.learner.reference.layers import (
    array,
    convolution,
    dense,
    elu_mlp,
    sigmoid,
    transposed_convolution,
)
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_rows, randomise, tiny_config

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "half the kl": {"kl_scale": 0.5},
    "all nats free": {"free_nats": 1000.0},
    "free nats by element": {"free_nats": 0.3, "kl_clip": "element"},
    "discount head": {"discount_head": True},
}


class Terms(NamedTuple):
    """The parts of the reference's loss, unweighted, and the posterior (L, B, ...)."""

    image: float
    reward: float
    kl: float
    discount: float
    posterior: Belief


def encode(model: WorldModel, image: np.ndarray) -> np.ndarray:
    for layer in model.encoder.layers:
        image = np.maximum(convolution(layer, image, stride=2), 0.0)
    return image.reshape(len(image), -1)


def decode(model: WorldModel, feature: np.ndarray) -> np.ndarray:
    decoder = model.objective.decoder
    image = dense(decoder.dense, feature)[:, :, None, None]
    for i, layer in enumerate(m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)):
        image = transposed_convolution(layer, image if i == 0 else np.maximum(image, 0.0), stride=2)
    return image


def reference_terms(model: WorldModel, batch: Batch, noise: torch.Tensor) -> Terms:
    image = array(batch.image).transpose(1, 0, 4, 2, 3) / 255.0 - 0.5  # (L, B, 3, 64, 64)
    pixels = image.reshape(LENGTH * BATCH, 3, 64, 64)
    embed = encode(model, pixels).reshape(LENGTH, BATCH, -1)
    sizes = model.config
    rssm = ReferenceRSSM(model.rssm, sizes.stoch, sizes.deter, sizes.min_std)
    action, is_first = array(batch.action).transpose(1, 0, 2), batch.is_first.numpy().T
    posterior, prior = rssm.observe(embed, action, is_first, array(noise))
    drawn = decode(model, posterior.feature.reshape(LENGTH * BATCH, -1)).reshape(image.shape)
    discount = 0.0
    if model.discount_head is not None:
        probability = sigmoid(elu_mlp(model.discount_head, posterior.feature)[..., 0])
        discount = reference.discount_loss(array(batch.discount).T, probability, gamma=0.99)
    return Terms(
        image=reference.image_loss(image, drawn),
        reward=reference.reward_loss(array(batch.reward).T, elu_mlp(model.reward, posterior.feature)[..., 0]),
        kl=reference.kl_loss(posterior, prior, sizes.free_nats, sizes.kl_clip),
        discount=discount,
        posterior=posterior,
    )


def reference_loss(model: WorldModel, batch: Batch, noise: torch.Tensor) -> float:
    terms = reference_terms(model, batch, noise)
    return terms.image + terms.reward + model.config.kl_scale * terms.kl + 10.0 * terms.discount


def make(**settings: Any) -> tuple[WorldModel, Batch, torch.Tensor]:
    """In float64; the encoder's input is widened on its way in."""
    torch.manual_seed(0)
    config = tiny_config(world_model=settings)
    model = WorldModel(config, ACTIONS)
    randomise(model, size=0.1)
    model.double()
    model.encoder.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(),))
    rows = Batch.from_rows(random_rows(0), torch.device("cpu"))
    batch = Batch(rows.image, rows.action.double(), rows.reward.double(), rows.discount.double(), rows.is_first)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(LENGTH, BATCH, config.world_model.stoch, generator=generator, dtype=torch.float64)
    return model, batch, noise


@pytest.mark.parametrize("case", CASES)
def test_the_model_loss_follows_the_equation_constants_included(case: str) -> None:
    model, batch, noise = make(**CASES[case])
    actual = model.loss(batch, noise).loss
    assert actual.shape == ()
    # The images are float32 on their way into the model, hence not 1e-12.
    np.testing.assert_allclose(actual.item(), reference_loss(model, batch, noise), rtol=1e-8)


def test_the_metrics_are_the_terms_of_the_loss() -> None:
    model, batch, noise = make(discount_head=True)
    terms = reference_terms(model, batch, noise)
    metrics = model.loss(batch, noise).metrics
    expected = {"image_loss": terms.image, "reward_loss": terms.reward, "kl": terms.kl, "discount_loss": terms.discount}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name].item(), value, rtol=1e-6, err_msg=name)
        assert not metrics[name].requires_grad


def test_the_posterior_comes_back_time_first_and_attached() -> None:
    model, batch, noise = make()
    posterior = model.loss(batch, noise).posterior
    expected = reference_terms(model, batch, noise).posterior
    np.testing.assert_allclose(array(posterior.feature), expected.feature, rtol=1e-6, atol=1e-7)
    assert posterior.stoch.requires_grad


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_every_parameter_follows_central_differences_of_the_reference(case: str) -> None:
    """One random entry of each parameter tensor."""
    model, batch, noise = make(**CASES[case])
    model.loss(batch, noise).loss.backward()
    random = np.random.default_rng(0)
    step = 1e-6  # small, because a pixel that crosses a ReLU's kink inside it bends the difference
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        index = tuple(int(random.integers(size)) for size in parameter.shape)
        centre = parameter.data[index].item()
        sides = []
        for side in (centre + step, centre - step):
            parameter.data[index] = side
            sides.append(reference_loss(model, batch, noise))
        parameter.data[index] = centre
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(parameter.grad[index].item(), slope, rtol=1e-4, atol=1e-5, err_msg=name)


def test_free_nats_leave_the_prior_untrained() -> None:
    """Only the KL reaches the prior's own layers; the posterior still learns from image and reward."""
    model, batch, noise = make(free_nats=1000.0)
    model.loss(batch, noise).loss.backward()
    for name, parameter in model.rssm.named_parameters():
        assert parameter.grad is not None
        of_the_prior = name.startswith(("prior_hidden", "prior_output"))
        assert bool(parameter.grad.any()) is not of_the_prior, name


def test_every_row_may_start_imagination_and_is_detached() -> None:
    model, batch, noise = make()
    posterior = model.loss(batch, noise).posterior
    starts = model.starts(posterior)
    assert len(starts.deter) == model.start_count(BATCH, LENGTH) == BATCH * LENGTH
    assert not any(part.requires_grad for part in starts)
    torch.testing.assert_close(starts.feature, posterior.feature.detach().flatten(0, 1), rtol=0, atol=0)


def test_with_a_discount_head_no_sequence_starts_imagination_in_its_last_row() -> None:
    model, batch, noise = make(discount_head=True)
    posterior = model.loss(batch, noise).posterior
    starts = model.starts(posterior)
    assert len(starts.deter) == model.start_count(BATCH, LENGTH) == BATCH * (LENGTH - 1)
    torch.testing.assert_close(starts.feature, posterior.feature[:-1].detach().flatten(0, 1), rtol=0, atol=0)


def test_the_imagined_discount_is_gamma_or_the_heads_mean() -> None:
    feature = torch.randn(3, 5, 10, dtype=torch.float64)
    without, _, _ = make()
    np.testing.assert_allclose(array(without.discount(feature)), np.full((3, 5), 0.99), rtol=1e-12)
    with_head, _, _ = make(discount_head=True)
    expected = sigmoid(elu_mlp(with_head.discount_head, array(feature))[..., 0])
    np.testing.assert_allclose(array(with_head.discount(feature)), expected, rtol=1e-12)
