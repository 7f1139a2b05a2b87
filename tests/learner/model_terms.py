"""The world model in float64 beside its loss in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from learner.batch import Batch
from learner.world_model import WorldModel
from learner.world_model.objectives.contrastive import Contrastive
from learner.world_model.objectives.reconstruction import Reconstruction
from tests.learner.reference import losses as reference
from tests.learner.reference.contrastive import info_nce, pairwise_normal_log_prob
from tests.learner.reference.layers import array, elu_mlp, sigmoid, softplus
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.reference.vision import decode, encode
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_rows, randomise, tiny_config


class Terms(NamedTuple):
    """The parts of the reference's loss, unweighted, and the posterior (L, B, ...)."""

    seeing: float
    reward: float
    kl: float
    discount: float
    posterior: Belief


def pairs(model: WorldModel, feature: np.ndarray, embed: np.ndarray) -> np.ndarray:
    """m[i, j] = ln q(z_i|o_j) of all rows of the batch, std = softplus(x + ln(e − 1)) + 0.01."""
    mean, raw = np.split(elu_mlp(model.objective.state_model, embed.reshape(LENGTH * BATCH, -1)), 2, axis=-1)
    std = softplus(raw + np.log(np.e - 1.0)) + 0.01
    return pairwise_normal_log_prob(feature.reshape(LENGTH * BATCH, -1), mean, std)


def seeing_loss(model: WorldModel, feature: np.ndarray, embed: np.ndarray, image: np.ndarray) -> float:
    """The objective's own term: −E[ln p(o|s)], −J_NCE or nothing."""
    if isinstance(model.objective, Reconstruction):
        drawn = decode(model.objective.decoder, feature.reshape(LENGTH * BATCH, -1))
        return reference.image_loss(image, drawn.reshape(image.shape))
    if isinstance(model.objective, Contrastive):
        return -info_nce(pairs(model, feature, embed), model.config.nce_sum)
    return 0.0


def reference_terms(model: WorldModel, batch: Batch, noise: torch.Tensor) -> Terms:
    image = array(batch.image).transpose(1, 0, 4, 2, 3) / 255.0 - 0.5  # (L, B, 3, 64, 64)
    pixels = image.reshape(LENGTH * BATCH, 3, 64, 64)
    embed = encode(model.encoder, pixels).reshape(LENGTH, BATCH, -1)
    sizes = model.config
    rssm = ReferenceRSSM(model.rssm, sizes.stoch, sizes.deter, sizes.min_std)
    action, is_first = array(batch.action).transpose(1, 0, 2), batch.is_first.numpy().T
    posterior, prior = rssm.observe(embed, action, is_first, array(noise))
    discount = 0.0
    if model.discount_head is not None:
        probability = sigmoid(elu_mlp(model.discount_head, posterior.feature)[..., 0])
        discount = reference.discount_loss(array(batch.discount).T, probability, gamma=0.99)
    return Terms(
        seeing=seeing_loss(model, posterior.feature, embed, image),
        reward=reference.reward_loss(array(batch.reward).T, elu_mlp(model.reward, posterior.feature)[..., 0]),
        kl=reference.kl_loss(posterior, prior, sizes.free_nats, sizes.kl_clip),
        discount=discount,
        posterior=posterior,
    )


def reference_loss(model: WorldModel, batch: Batch, noise: torch.Tensor) -> float:
    terms = reference_terms(model, batch, noise)
    return terms.seeing + terms.reward + model.config.kl_scale * terms.kl + 10.0 * terms.discount


def make_model(objective: str = "reconstruction", **settings: Any) -> tuple[WorldModel, Batch, torch.Tensor]:
    """In float64; the encoder's input is widened on its way in."""
    torch.manual_seed(0)
    config = tiny_config(objective=objective, world_model=settings)
    model = WorldModel(config, ACTIONS)
    randomise(model, size=0.1)
    model.double()
    rows = Batch.from_rows(random_rows(0), torch.device("cpu"))
    batch = Batch(rows.image, rows.action.double(), rows.reward.double(), rows.discount.double(), rows.is_first)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(LENGTH, BATCH, config.world_model.stoch, generator=generator, dtype=torch.float64)
    return model, batch, noise


def check_model_slopes(model: WorldModel, objective: Callable[[], float], parts: tuple[str, ...] = ("",)) -> None:
    """Central differences of `objective()` at one random entry of each parameter whose name starts so, against grad."""
    random = np.random.default_rng(0)
    step = 1e-6  # small, because a pixel that crosses a ReLU's kink inside it bends the difference
    for name, parameter in model.named_parameters():
        if not name.startswith(parts):
            continue
        assert parameter.grad is not None, name
        index = tuple(int(random.integers(size)) for size in parameter.shape)
        centre = parameter.data[index].item()
        sides = []
        for side in (centre + step, centre - step):
            parameter.data[index] = side
            sides.append(objective())
        parameter.data[index] = centre
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(parameter.grad[index].item(), slope, rtol=1e-4, atol=1e-5, err_msg=name)
