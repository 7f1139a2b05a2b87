"""The learner's update and the plain one are the same mathematics: given the same noise, the same losses and slopes."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from common.config import Config
from learner.batch import Batch
from learner.behaviors import BEHAVIORS
from learner.learner import Learner
from learner.plain import PlainLearner
from learner.world_model.objectives import OBJECTIVES
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_batches, random_rows, randomise, tiny_config
from tests.learner.tiny_learner import EVERY_CHOICE, parameters

CONFIGS = {
    **{
        f"{algorithm} {objective}": tiny_config(
            algorithm=algorithm,
            objective=objective,
            bird={"entropy_weight": 0.1},
            idm={} if objective == "reconstruction" else {"rho": 0.0},
        )
        for algorithm, objective in product(BEHAVIORS, OBJECTIVES)
    },
    "discount head": tiny_config(world_model={"discount_head": True}),
    "no value with discount head": tiny_config(
        algorithm="no_value", world_model={"discount_head": True}, no_value={"discounted": True}
    ),
    "value target": tiny_config(dreamer={"value_target_every": 2}),
    "arXiv actor": tiny_config(dreamer={"mean_scale": 0.0, "init_std": 0.0, "min_std": 0.0, "discount_weights": False}),
    "one imagined step more than none": tiny_config(horizon=2),
    "gaussian entropy": tiny_config(algorithm="soft_bird", soft_bird={"entropy": "gaussian"}),
    "idm without its parts": tiny_config(algorithm="idm", idm={"ablation": "without_both"}),
}


def both(config: Config, dtype: torch.dtype) -> tuple[Learner, Learner]:
    """The learner and the plain one, with the same random parameters."""
    fast = Learner(config, ACTIONS, random_batches())
    plain = PlainLearner(config, ACTIONS, random_batches())
    randomise(fast.modules, size=0.1)
    plain.modules.load_state_dict(fast.modules.state_dict())
    for learner in (fast, plain):
        learner.modules.to(dtype)
    return fast, plain


def losses_and_gradients(
    learner: Learner, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    batch = Batch.from_rows(random_rows(3), torch.device("cpu"))
    batch = batch._replace(**{name: getattr(batch, name).to(dtype) for name in ("action", "reward", "discount")})
    learner.generator.manual_seed(5)
    noise = {name: value.to(dtype) for name, value in learner.draw_noise(BATCH, LENGTH).items()}
    losses = learner.losses(batch, noise).by_optimiser
    gradients = {
        f"{name}: {parameter}": gradient
        for name, optimiser in learner.optimisers.items()
        for parameter, gradient in zip(optimiser.parameters, optimiser.gradients(losses[name]), strict=True)
    }
    return losses, gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["64", "32"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_losses_and_gradients_are_those_of_the_plain_update(
    config: Config, dtype: torch.dtype, tolerance: float
) -> None:
    (losses, gradients), (plain_losses, plain_gradients) = (
        losses_and_gradients(learner, dtype) for learner in both(config, dtype)
    )
    assert losses.keys() == plain_losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, plain_losses[name], rtol=tolerance, atol=tolerance)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        expected = plain_gradients[name]
        assert (gradient - expected).norm() <= tolerance * expected.norm() + 1e-12, name


@pytest.mark.parametrize("config", EVERY_CHOICE.values(), ids=list(EVERY_CHOICE))
def test_updates_go_where_the_plain_ones_go(config: Config) -> None:
    fast, plain = both(config, torch.float32)
    for learner in (fast, plain):
        learner.update(3)
    after, expected = parameters(fast), parameters(plain)
    for name, value in after.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)
