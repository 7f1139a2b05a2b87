"""How well IDM's trajectory evaluator tells real transitions from predicted ones it was not trained on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from learner.batch import Batch
from learner.behaviors.trajectory_evaluator import TrajectoryEvaluator, real_and_overshoot, segment_count
from learner.foresight import observe
from learner.world_model import WorldModel
from learner.world_model.kl import gaussian_kl


class Verdicts(NamedTuple):
    """What the evaluator says of M segments of T steps.

    Attributes:
        real: bool (T, M), whether a real transition was called real.
        fake: bool (T, M), whether a predicted one was called fake.
        kl: (L, B), KL(posterior ‖ prior) at each row, in nats: the world model's own.
    """

    real: Tensor
    fake: Tensor
    kl: Tensor


@torch.no_grad()
def judge(
    world_model: WorldModel, evaluator: TrajectoryEvaluator, batch: Batch, overshoot: int, generator: torch.Generator
) -> Verdicts:
    """The evaluator's verdicts, at threshold ½, on transitions made as in its training (IDM, eq. 3).

    Segments of T steps start at rows 0, T, 2T, … of each window; a fake one is T prior samples under the stored
    actions. There are as many real transitions as fake ones.

    Args:
        world_model: filters each window from the zero state, and predicts.
        evaluator: judges.
        batch: B windows of L rows, L > T.
        overshoot: T.
        generator: of the states' samples.
    """
    batch_size, length = batch.reward.shape
    stoch = world_model.rssm.stoch_size
    posterior, prior = observe(world_model, batch, torch.randn(length, batch_size, stoch, generator=generator))
    segments = batch_size * segment_count(length, overshoot)
    noise = torch.randn(overshoot, segments, stoch, generator=generator)
    real, fake = real_and_overshoot(world_model.rssm, posterior, batch.action.transpose(0, 1), overshoot, noise)
    return Verdicts(evaluator(*real) > 0, evaluator(*fake) <= 0, gaussian_kl(posterior, prior))
