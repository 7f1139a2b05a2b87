"""IDM: dreams from derived memories too, and trusts what looks real (IDM, eq. 1–8)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from common.config import Config
from learner.batch import Batch
from learner.behaviors.behavior import ParameterGroup
from learner.behaviors.dreamer import Dream, Dreamer
from learner.behaviors.trajectory_evaluator import TrajectoryEvaluator, real_and_overshoot, segment_count
from learner.ranks import ALONE, Ranks
from learner.world_model import WorldModel
from learner.world_model.model import ModelLoss
from learner.world_model.state import State


def derive_memory(
    deter: Tensor,
    mean: Tensor,
    std: Tensor,
    sigma_h: float,
    sigma_n: float,
    copies: int,
    noise_h: Tensor,
    noise_s: Tensor,
) -> tuple[Tensor, Tensor]:
    """Derived states h' ~ N(h, σ_h²), s' ~ N(μ_s, (σ_s + σ_n)²) (IDM, eq. 2).

    Args:
        deter: (N, D), h.
        mean: (N, S), μ_s of the posterior.
        std: (N, S), σ_s of the posterior.
        sigma_h: standard deviation of the noise on h.
        sigma_n: what is added to the posterior's standard deviation.
        copies: K, derived states of each; copy k of state n is row k · N + n. 0 gives empty tensors.
        noise_h: standard normal (K · N, D).
        noise_s: standard normal (K · N, S).

    Returns:
        h' (K · N, D) and s' (K · N, S).
    """
    derived_deter = deter.repeat(copies, 1) + sigma_h * noise_h
    derived_stoch = mean.repeat(copies, 1) + (std + sigma_n).repeat(copies, 1) * noise_s
    return derived_deter, derived_stoch


def reliability_weight(probability: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """w = (W + 1e-12) / sum(W + 1e-12) · count (IDM, eq. 4): W of any shape → the same shape, mean 1, detached.

    Sum and count are over the rows and trajectories of all `ranks` that share the batch.
    """
    weight = probability.detach() + 1e-12
    return weight / ranks.mean(weight.mean())


def evaluator_loss(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """−mean ln E(real) − mean ln(1 − E(fake)), E = sigmoid(logit) (IDM, eq. 3 as a loss): any shapes → a scalar."""
    return functional.softplus(-real_logit).mean() + functional.softplus(fake_logit).mean()


def decoding_constraint(drawn: Tensor, disturbed: Tensor, delta: float) -> Tensor:
    """mean relu(KL(p(o'|z') ‖ p(o|z)) − δ) over images, the penalty of IDM's eq. 1.

    Both are Normal(·, 1) over pixels, so the KL is half their squared distance, ½‖ô' − ô‖², in nats.

    Args:
        drawn: (N, 3, 64, 64), ô.
        disturbed: (N, 3, 64, 64), ô', of states with noise on them.
        delta: nats that cost nothing.
    """
    distance = 0.5 * (disturbed - drawn).square().flatten(1).sum(1)  # (N,)
    return functional.relu(distance - delta).mean()


class Idm(Dreamer):
    """IDM (Mu et al. 2021): Dreamer that also dreams from disturbed copies of its
    states, and weights each imagined step by how real it looks to an evaluator.

    World model: + ρ · the decoding constraint. Actor and value: Dreamer's over N · (1 + K) starts, each term times the
    evaluator's weight (eq. 7–8). `idm.ablation` leaves parts out.
    """

    def __init__(self, config: Config, feature_size: int, action_size: int) -> None:
        super().__init__(config, feature_size, action_size)
        idm = self.idm = config.idm
        self.copies = 0 if idm.ablation in ("without_derived_memory", "without_both") else idm.copies
        self.rho = 0.0 if idm.ablation == "without_both" else idm.rho
        self.looks_at_images = self.rho > 0
        self.deter_size = config.world_model.deter
        self.evaluator: TrajectoryEvaluator | None = None
        if idm.ablation != "without_evaluator":
            self.evaluator = TrajectoryEvaluator(feature_size, action_size, idm.evaluator_layers, idm.evaluator_units)

    def groups(self) -> dict[str, ParameterGroup]:
        """Dreamer's, and `evaluator`."""
        if self.evaluator is None:
            return super().groups()
        return {**super().groups(), "evaluator": ParameterGroup(self.evaluator, self.idm.evaluator_learning_rate)}

    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """Dreamer's for N · (1 + K) starts, and what derived memories, constraint and evaluator want."""
        stoch, deter, derived = self.noise_sizes[0], self.deter_size, self.copies * starts
        shapes = super().noise_shapes(batch_size, length, starts + derived)
        if derived:
            shapes |= {"derived_deter": (derived, deter), "derived_stoch": (derived, stoch)}
        if self.rho > 0:
            rows = (batch_size, length)
            shapes |= {"disturbed_deter": (*rows, deter), "disturbed_stoch": (*rows, stoch)}
        if self.evaluator is not None:
            segments = batch_size * segment_count(length, self.idm.overshoot)
            shapes |= {"overshoot": (self.idm.overshoot, segments, stoch)}
        return shapes

    def model_loss(
        self, world_model: WorldModel, model: ModelLoss, noise: dict[str, Tensor]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """ρ · the decoding constraint between each posterior state and itself with noise on it (R2S2)."""
        if self.rho == 0:
            return None, {}
        assert model.drawn is not None, "the objective draws no images"
        state = model.posterior.map(lambda part: part.transpose(0, 1).flatten(0, 1))  # (B · L, …), as `drawn`
        disturbed = state._replace(
            deter=state.deter + self.idm.sigma_h * noise["disturbed_deter"].flatten(0, 1),
            stoch=state.stoch + self.idm.sigma_n * noise["disturbed_stoch"].flatten(0, 1),
        )
        drawn = world_model.objective.draw(disturbed.feature)
        assert drawn is not None
        penalty = decoding_constraint(model.drawn, drawn, self.idm.delta)
        return self.rho * penalty, {"decoding_constraint": penalty.detach()}

    def starts(self, starts: State, noise: dict[str, Tensor]) -> State:
        """The originals, and K derived states of each behind them: (N · (1 + K), …)."""
        if self.copies == 0:
            return starts
        deter, stoch = derive_memory(
            starts.deter,
            starts.mean,
            starts.std,
            self.idm.sigma_h,
            self.idm.sigma_n,
            self.copies,
            noise["derived_deter"],
            noise["derived_stoch"],
        )
        derived = State(deter, starts.mean.repeat(self.copies, 1), starts.std.repeat(self.copies, 1), stoch)
        return State(*(torch.cat(parts) for parts in zip(starts, derived, strict=True)))

    def weights(self, dream: Dream) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Dreamer's, times W_τ = E(z_τ, a_τ, z_{τ+1}) for τ = 1 … H−1, brought to mean 1."""
        on_actor, on_value, metrics = super().weights(dream)
        if self.evaluator is None:
            return on_actor, on_value, metrics
        feature = dream.feature.detach()
        with torch.no_grad():  # the action that led to state τ + 1 is the one taken in state τ
            probability = self.evaluator(feature[:-1], dream.action[1:].detach(), feature[1:]).sigmoid()  # (H − 1, N)
        weight = reliability_weight(probability, self.ranks)
        metrics |= {"reliability_probability": probability.mean(), "reliability_weight_std": self.ranks.std(weight)}
        return weight * on_actor, weight * on_value, metrics

    def losses(
        self, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Dreamer's, and the `evaluator`'s."""
        losses, metrics = super().losses(world_model, batch, posterior, noise)
        if self.evaluator is None:
            return losses, metrics
        action = batch.action.transpose(0, 1)  # (L, B, A)
        real, fake = real_and_overshoot(world_model.rssm, posterior, action, self.idm.overshoot, noise["overshoot"])
        real_logit, fake_logit = self.evaluator(*real), self.evaluator(*fake)  # (T, M)
        losses["evaluator"] = evaluator_loss(real_logit, fake_logit)
        right = 0.5 * ((real_logit.detach() > 0).float().mean() + (fake_logit.detach() <= 0).float().mean())
        metrics |= {"evaluator_loss": losses["evaluator"].detach(), "evaluator_accuracy": right}
        return losses, metrics
