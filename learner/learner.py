"""The learner: batches in; metrics, weights and checkpoints out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config import Config
from common.errors import NoWindowsError, UserError
from common.reports import UpdateReport
from common.seeding import derive_seed
from common.usage import usage
from learner.batch import Batch
from learner.behaviors import BEHAVIORS
from learner.capture import Outcome
from learner.compiling import captured, compile_networks
from learner.feed import Batches, Feed
from learner.feedback import Feedback, Prioritised
from learner.foresight import observe
from learner.gpu import gpu_use
from learner.optimisation import Optimiser
from learner.policy import policy_weights
from learner.precision import computing
from learner.ranks import ALONE, RankLostError, Ranks
from learner.world_model import WorldModel

PARAMETERS = "parameters.safetensors"
OPTIMISERS = "optimisers.safetensors"


class Losses(NamedTuple):
    """What one update is made of.

    Attributes:
        by_optimiser: a scalar for each (`model`, then the behaviour's), attached to the graph.
        metrics: detached scalars by name.
        by_sequence: `ModelLoss.by_sequence`.
    """

    by_optimiser: dict[str, Tensor]
    metrics: dict[str, Tensor]
    by_sequence: Tensor | None


class Learner:
    """Trains a world model and a behaviour on sampled sequences.

    All losses of an update are computed with the parameters from before it, then every optimiser steps. Nothing inside
    an update waits for the device.

    Args:
        config: the run's.
        action_size: A.
        batches: (B, L) rows each, or where on the device these are; of a batch that several ranks share, this one's
            B/R sequences.
        device: where to compute.
        ranks: who shares each batch. All do the same updates, in step, and so have the same parameters.
    """

    def __init__(
        self,
        config: Config,
        action_size: int,
        batches: Batches,
        device: str = "cpu",
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.feed = Feed(batches, self.device)
        self.feedback = Feedback(batches) if isinstance(batches, Prioritised) else None
        self.ranks = ranks
        self.updates = 0
        self.coming: Batch | None = None
        self.newest: Batch | None = None
        torch.manual_seed(derive_seed(config.seed, "learner", "initialisation"))
        self.generator = torch.Generator(self.device).manual_seed(derive_seed(config.seed, "learner", "noise"))
        world_model = WorldModel(config, action_size)
        behavior = BEHAVIORS[config.algorithm](config, world_model.rssm.feature_size, action_size)
        self.world_model = world_model.to(self.device)
        self.behavior = behavior.to(self.device)
        self.world_model.ranks = self.world_model.objective.ranks = self.behavior.ranks = ranks
        world_model.objective.keeps_images = behavior.looks_at_images
        self.modules = nn.ModuleDict({"world_model": self.world_model, "behavior": self.behavior})
        training = config.training
        groups = {"model": (self.world_model, config.world_model.learning_rate), **self.behavior.groups()}
        self.optimisers = {
            name: Optimiser(module, rate, training.adam_epsilon, training.gradient_clip)
            for name, (module, rate) in groups.items()
        }
        self.compiled = compile_networks(self.modules, config.compile, self.device)
        self.captured = captured(self.one_update, config.compile, self.device, ranks)

    def update(self, count: int, seconds: float | None = None) -> UpdateReport:
        """Learns from up to `count` batches, and reads metrics from the device at the end.

        Fewer once `seconds` are over, or where no more can be drawn; there may be none then. Ranks stop together. When
        one is lost the others end between two updates: `lost` says so, and what was learnt until then is whole.

        Raises:
            FloatingPointError: a metric is not finite, so that the run has diverged.
            UserError: no batch can be drawn, and why; or the ranks' parameters have drifted apart.
        """
        begin = time.perf_counter()
        waited = 0.0
        bytes_before = self.feed.bytes
        done = 0
        totals: dict[str, Tensor] = {}
        lost = ""
        try:
            while done < count:
                asked = time.perf_counter()
                over = done > 0 and seconds is not None and asked - begin >= seconds
                trouble = None if over else self._fetch()
                ending = self.ranks.any(over or trouble is not None)
                waited += time.perf_counter() - asked
                if ending:
                    if isinstance(trouble, UserError) and not done:
                        raise trouble
                    break  # what was learnt counts; the next call finds out again
                metrics = self.learn(self._taken())
                totals = {name: totals[name] + value if done else value for name, value in metrics.items()}
                done += 1
            if done:
                totals = dict(zip(totals, self.ranks.mean(torch.stack(list(totals.values()))), strict=True))
                self.ranks.assert_same(self.modules.state_dict().values())
        except RankLostError as error:
            lost = str(error)
        values = (torch.stack(list(totals.values())) / done).tolist() if done else []
        metrics_read = dict(zip(totals, values, strict=True))
        broken = [name for name, value in metrics_read.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"training diverged: {', '.join(broken)} not finite at update {self.updates}")
        if self.feedback is not None:
            self.feedback.flush()
        return UpdateReport(
            updates=done,
            metrics=metrics_read,
            batch_wait_seconds=waited,
            update_seconds=time.perf_counter() - begin - waited,
            usage=usage(),
            gpu=gpu_use(self.device),
            lost=lost,
            batch_bytes=self.feed.bytes - bytes_before,
        )

    def _fetch(self) -> NoWindowsError | UserError | None:
        """Has the next batch ready, unless it is already; or says why there is none."""
        try:
            self.coming = self.coming or next(self.feed)
        except (NoWindowsError, UserError) as error:
            return error
        return None

    def _taken(self) -> Batch:
        """The batch that is ready."""
        assert self.coming is not None
        self.newest, self.coming = self.coming, None
        return self.newest

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One update; returns metrics as scalars on the device."""
        noise = self.draw_noise(*batch.reward.shape)
        metrics, by_sequence = (self.captured or self.one_update)(batch, noise)
        self.updates += 1
        self.behavior.after_update(self.updates)
        if self.feedback is not None and by_sequence is not None:
            self.feedback.put(by_sequence)
        return metrics

    def one_update(self, batch: Batch, noise: dict[str, Tensor]) -> Outcome:
        """What of an update the device does by itself: losses, gradients and the optimisers' steps."""
        losses, metrics, by_sequence = self.losses(batch, noise)
        # The model's come last, and each loss is let go: what a way back needed is free for the next one's.
        own = {name: self.optimisers[name].gradients(losses.pop(name)) for name in reversed(self.optimisers)}
        gradients = self.ranks.average(own)
        for name, optimiser in self.optimisers.items():
            metrics[f"{name}_gradient_norm"] = optimiser.step(gradients[name])
        return Outcome(metrics, by_sequence)

    def losses(self, batch: Batch, noise: dict[str, Tensor]) -> Losses:
        """All losses of an update."""
        with computing(self.config.precision, self.device):
            model = self.world_model.loss(batch, noise["posterior"])
            asked, asked_metrics = self.behavior.model_loss(self.world_model, model, noise)
            losses, metrics = self.behavior.losses(self.world_model, batch, model.posterior, noise)
        model_loss = model.loss if asked is None else model.loss + asked
        return Losses({"model": model_loss, **losses}, model.metrics | asked_metrics | metrics, model.by_sequence)

    def draw_noise(self, batch_size: int, length: int) -> dict[str, Tensor]:
        """All random numbers of one update, by name, from the learner's one generator.

        They are drawn for the whole batch, of which every rank takes what belongs to its own sequences.
        """
        whole = self._noise_shapes(batch_size * self.ranks.size, length)
        own = self._noise_shapes(batch_size, length)
        return {
            name: self.ranks.own(
                torch.randn(shape, generator=self.generator, device=self.device), own[name], batch_size
            )
            for name, shape in whole.items()
        }

    def _noise_shapes(self, batch_size: int, length: int) -> dict[str, tuple[int, ...]]:
        starts = self.world_model.start_count(batch_size, length)
        return {
            "posterior": (length, batch_size, self.config.world_model.stoch),
            **self.behavior.noise_shapes(batch_size, length, starts),
        }

    def about_batches(self) -> str:
        """One line on where its batches come from; nothing where they have nothing to say."""
        return str(getattr(self.feed.batches, "about", ""))

    def place(self) -> str:
        """What it computes with. Ranks in different places would round differently, and drift apart."""
        cuda = self.device.type == "cuda"
        with_ = torch.cuda.get_device_name(self.device) if cuda else f"{torch.get_num_threads()} CPU threads"
        return f"{with_}, PyTorch {torch.__version__}"

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What a policy needs to act, by parameter name."""
        model = self.world_model
        return policy_weights(model.encoder, model.rssm, model.reward, self.behavior.acting)

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
        # Networks would be compiled once more, for these shapes.
        with self.uncompiled():
            posterior, _ = observe(self.world_model, first, noise)  # its loss would wait for other ranks
            feature = posterior.feature[:, 0]  # (L, F)
            drawn = self.world_model.objective.draw(feature)  # (L, 3, 64, 64)
        if drawn is None:
            return None
        model = (drawn.permute(0, 2, 3, 1) + 0.5).clamp(0, 1)  # (L, 64, 64, 3)
        truth = first.image[0].float() / 255
        chosen = torch.linspace(0, length - 1, min(columns, length), device=self.device).long()
        strip = torch.stack([truth, model, (model - truth + 1) / 2])[:, chosen]  # (3, columns, 64, 64, 3)
        picture = strip.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)  # (3 · 64, columns · 64, 3)
        return (picture * 255).round().to(torch.uint8).cpu().numpy()

    def uncompiled(self) -> AbstractContextManager[object]:
        """Within, networks run as they are written."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

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
        if self.captured is not None:
            self.captured.forget()  # the optimisers' state lies elsewhere now
