"""A learner whose update is written as everybody writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from common.config import Config
from common.sequence import Rows
from learner.batch import Batch
from learner.learner import Learner, Losses
from learner.plain.behaviors import asked_of_the_model, behavior_losses
from learner.plain.model import model_loss


class PlainLearner(Learner):
    """The straightforward update: float32, uncompiled, a loop over time for states and for dreams.

    It is what a careful port of Dreamer to PyTorch does: images are encoded and decoded all at once, the world model
    is frozen while the behaviour learns, each loss has its own `backward` and its own Adam. It has none of the fast
    path's work: nothing is taken out of the loops, convolutions lie as PyTorch lays them, heads are asked at each step.
    """

    def __init__(self, config: Config, action_size: int, batches: Iterator[Rows], device: str = "cpu") -> None:
        super().__init__(replace(config, compile="none"), action_size, batches, device)
        for parameter in self.modules.parameters():
            parameter.data = parameter.data.contiguous()
        epsilon = config.training.adam_epsilon
        self.adams = {
            name: torch.optim.Adam(optimiser.parameters.values(), lr=optimiser.adam.defaults["lr"], eps=epsilon)
            for name, optimiser in self.optimisers.items()
        }

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One update; returns losses and gradient norms."""
        losses = self.losses(batch, self.draw_noise(*batch.reward.shape)).by_optimiser
        metrics = {f"{name}_loss": loss.detach() for name, loss in losses.items()}
        for name, adam in self.adams.items():
            adam.zero_grad()
            losses[name].backward(inputs=list(self.optimisers[name].parameters.values()))
        for name, adam in self.adams.items():
            parameters = self.optimisers[name].parameters.values()
            metrics[f"{name}_gradient_norm"] = nn.utils.clip_grad_norm_(parameters, self.config.training.gradient_clip)
            adam.step()
        self.updates += 1
        self.behavior.after_update(self.updates)
        return metrics

    def losses(self, batch: Batch, noise: dict[str, Tensor]) -> Losses:
        """What `Learner.losses` computes, without its metrics; in float32, whatever the configuration says."""
        model = model_loss(self.world_model, batch, noise["posterior"])
        asked = asked_of_the_model(self.behavior, self.world_model, model, noise)
        with frozen(self.world_model):
            losses = behavior_losses(self.behavior, self.world_model, batch, model.posterior, noise)
        return Losses({"model": model.loss if asked is None else model.loss + asked, **losses}, {}, None)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, nothing asks for gradients of the module's parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
