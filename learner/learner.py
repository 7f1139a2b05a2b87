"""The learner: batches in; metrics, weights and checkpoints out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config import Config
from common.memory import resident_bytes
from common.reports import UpdateReport
from common.seeding import derive_seed
from common.sequence import Rows
from learner.batch import Batch
from learner.behaviors import BEHAVIORS
from learner.optimisation import Optimiser
from learner.policy import policy_weights
from learner.world_model import WorldModel

PARAMETERS = "parameters.safetensors"
OPTIMISERS = "optimisers.safetensors"


class Learner:
    """Trains a world model and a behaviour on sampled sequences.

    All losses of an update are computed with the parameters from before it, then every optimiser steps. Nothing inside
    an update waits for the device.
    """

    def __init__(self, config: Config, action_size: int, batches: Iterator[Rows], device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.batches = batches
        self.updates = 0
        self.newest: Batch | None = None
        torch.manual_seed(derive_seed(config.seed, "learner", "initialisation"))
        self.generator = torch.Generator(self.device).manual_seed(derive_seed(config.seed, "learner", "noise"))
        world_model = WorldModel(config, action_size)
        behavior = BEHAVIORS[config.algorithm](config, world_model.rssm.feature_size, action_size)
        self.world_model = world_model.to(self.device)
        self.behavior = behavior.to(self.device)
        self.modules = nn.ModuleDict({"world_model": self.world_model, "behavior": self.behavior})
        training = config.training
        groups = {"model": (self.world_model, config.world_model.learning_rate), **self.behavior.groups()}
        self.optimisers = {
            name: Optimiser(module, rate, training.adam_epsilon, training.gradient_clip)
            for name, (module, rate) in groups.items()
        }

    def update(self, count: int, seconds: float | None = None) -> UpdateReport:
        """Learns from up to `count` batches, fewer once `seconds` are over; reads metrics from the device at the end.

        Raises:
            FloatingPointError: a metric is not finite, so that the run has diverged.
        """
        begin = time.perf_counter()
        waited = 0.0
        done = 0
        totals: dict[str, Tensor] = {}
        while done < count and not (done and seconds is not None and time.perf_counter() - begin >= seconds):
            asked = time.perf_counter()
            rows = next(self.batches)
            waited += time.perf_counter() - asked
            self.newest = Batch.from_rows(rows, self.device)
            metrics = self.learn(self.newest)
            totals = {name: totals[name] + value if done else value for name, value in metrics.items()}
            done += 1
        values = (torch.stack(list(totals.values())) / done).tolist()
        metrics_read = dict(zip(totals, values, strict=True))
        broken = [name for name, value in metrics_read.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"training diverged: {', '.join(broken)} not finite at update {self.updates}")
        return UpdateReport(
            updates=done,
            metrics=metrics_read,
            batch_wait_seconds=waited,
            update_seconds=time.perf_counter() - begin - waited,
            resident_bytes=resident_bytes(),
        )

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One update; returns metrics as scalars on the device."""
        losses, metrics = self.losses(batch, self.draw_noise(*batch.reward.shape))
        gradients = {name: optimiser.gradients(losses[name]) for name, optimiser in self.optimisers.items()}
        for name, optimiser in self.optimisers.items():
            metrics[f"{name}_gradient_norm"] = optimiser.step(gradients[name])
        self.updates += 1
        self.behavior.after_update(self.updates)
        return metrics

    def losses(self, batch: Batch, noise: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each optimiser by name (`model`, then the behaviour's), and detached metrics."""
        model = self.world_model.loss(batch, noise["posterior"])
        losses, metrics = self.behavior.losses(self.world_model, model.posterior, noise)
        return {"model": model.loss, **losses}, model.metrics | metrics

    def draw_noise(self, batch_size: int, length: int) -> dict[str, Tensor]:
        """All random numbers of one update, by name, from the learner's one generator."""
        starts = self.world_model.start_count(batch_size, length)
        shapes = {
            "posterior": (length, batch_size, self.config.world_model.stoch),
            **self.behavior.noise_shapes(starts),
        }
        return {
            name: torch.randn(shape, generator=self.generator, device=self.device) for name, shape in shapes.items()
        }

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What a policy needs to act, by parameter name."""
        return policy_weights(self.world_model.encoder, self.world_model.rssm, self.behavior.acting)

    @torch.no_grad()
    def reconstruction_strip(self, columns: int = 8) -> NDArray[np.uint8] | None:
        """Truth, model and difference, one under the other, for `columns` rows of the newest batch's first sequence.

        Returns:
            uint8 (3 · 64, columns · 64, 3), or None before the first update, or where the objective draws no images.
        """
        if self.newest is None:
            return None
        first = Batch(*(part[:1] for part in self.newest))
        length = first.reward.shape[1]
        noise = torch.zeros(length, 1, self.config.world_model.stoch, device=self.device)
        feature = self.world_model.loss(first, noise).posterior.feature[:, 0]  # (L, F)
        drawn = self.world_model.objective.draw(feature)  # (L, 3, 64, 64)
        if drawn is None:
            return None
        model = (drawn.permute(0, 2, 3, 1) + 0.5).clamp(0, 1)  # (L, 64, 64, 3)
        truth = first.image[0].float() / 255
        chosen = torch.linspace(0, length - 1, min(columns, length), device=self.device).long()
        strip = torch.stack([truth, model, (model - truth + 1) / 2])[:, chosen]  # (3, columns, 64, 64, 3)
        picture = strip.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)  # (3 · 64, columns · 64, 3)
        return (picture * 255).round().to(torch.uint8).cpu().numpy()

    def state(self) -> dict[str, bytes]:
        """Everything that the next update depends on, as named safetensors files."""
        parameters = {name: tensor.cpu().contiguous() for name, tensor in self.modules.state_dict().items()}
        optimisers = {
            f"{group}.{name}": tensor.cpu().contiguous()
            for group, optimiser in self.optimisers.items()
            for name, tensor in optimiser.state().items()
        }
        optimisers["updates"] = torch.tensor(self.updates)
        optimisers["generator"] = self.generator.get_state()
        return {PARAMETERS: safetensors.torch.save(parameters), OPTIMISERS: safetensors.torch.save(optimisers)}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Takes over what `state` returned; raises RuntimeError when the parameters do not fit this configuration."""
        self.modules.load_state_dict(safetensors.torch.load(files[PARAMETERS]))
        optimisers = safetensors.torch.load(files[OPTIMISERS])
        self.updates = int(optimisers.pop("updates"))
        generator = optimisers.pop("generator")
        if len(generator) == len(self.generator.get_state()):
            self.generator.set_state(generator)
        else:  # the checkpoint comes from another kind of device, whose state means nothing here
            self.generator.manual_seed(derive_seed(self.config.seed, "learner", "noise", self.updates))
        for group, optimiser in self.optimisers.items():
            prefix = f"{group}."
            optimiser.restore({k.removeprefix(prefix): v for k, v in optimisers.items() if k.startswith(prefix)})
