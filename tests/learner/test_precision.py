"""bf16 is float32 seen less sharply: products lose digits, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from common.config import Config
from learner.batch import Batch
from learner.learner import Learner
from tests.learner.tiny import BATCH, LENGTH, random_rows, tiny_config
from tests.learner.tiny_learner import EVERY_CHOICE, make_learner

CURVES = ("model_loss", "reward_loss", "actor_loss", "value_loss")


def losses_and_gradients(config: Config) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    learner = make_learner(config)
    batch = Batch.from_rows(random_rows(3), learner.device)
    losses = learner.losses(batch, learner.draw_noise(BATCH, LENGTH)).by_optimiser
    gradients = {name: optimiser.gradients(losses[name]) for name, optimiser in learner.optimisers.items()}
    return losses, {name: torch.cat([part.flatten() for part in parts]) for name, parts in gradients.items()}


@pytest.mark.parametrize("config", EVERY_CHOICE.values(), ids=list(EVERY_CHOICE))
def test_losses_in_bf16_are_within_two_hundredths_and_gradients_point_the_same_way(config: Config) -> None:
    losses, gradients = losses_and_gradients(replace(config, precision="bf16"))
    exact_losses, exact_gradients = losses_and_gradients(config)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact_losses[name], rtol=0.02, atol=0.02)
        assert gradients[name].dtype == torch.float32
        assert not torch.equal(gradients[name], exact_gradients[name]), "nothing was computed in bf16"
        assert torch.cosine_similarity(gradients[name], exact_gradients[name], dim=0) > 0.98


def test_loss_curves_in_bf16_follow_those_in_float32() -> None:
    curves = {}
    for precision in ("float32", "bf16"):
        learner: Learner = make_learner(replace(tiny_config(), precision=precision))
        curves[precision] = [learner.update(1).metrics for _ in range(20)]
    for exact, rough in zip(curves["float32"], curves["bf16"], strict=True):
        for name in CURVES:
            assert rough[name] == pytest.approx(exact[name], rel=0.03, abs=0.03), name


def test_tf32_is_float32_on_a_cpu() -> None:
    learner, exact = make_learner(replace(tiny_config(), precision="tf32")), make_learner()
    assert learner.update(2).metrics == exact.update(2).metrics
