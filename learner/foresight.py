"""What a trained world model foresees: open-loop states under known actions, held against what then came."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from learner.batch import Batch
from learner.distributions import LOG_2PI, normal_log_prob
from learner.pictures import normalise
from learner.world_model import WorldModel
from learner.world_model.kl import gaussian_kl
from learner.world_model.state import State

_DRAWN_AT_ONCE = 256  # images of one pass through the decoder, so that its activations stay small


@torch.no_grad()
def observe(world_model: WorldModel, batch: Batch, noise: Tensor) -> tuple[State, State]:
    """Filters B sequences of L rows from the zero state: posterior and prior states (L, B, …); noise is (L, B, S)."""
    batch_size, length = batch.reward.shape
    embed = torch.cat([world_model.encoder(normalise(image)) for image in batch.image.flatten(0, 1).split(500)])
    embed = embed.view(batch_size, length, -1).transpose(0, 1)  # (L, B, E)
    return world_model.rssm.observe(embed, batch.action.transpose(0, 1), batch.is_first.transpose(0, 1), noise)


@torch.no_grad()
def look_then_foresee(world_model: WorldModel, batch: Batch, context: int, noise: Tensor) -> State:
    """Filters the first rows of each sequence and predicts the others from their actions alone (Dreamer, figure 5).

    Args:
        world_model: filters and predicts.
        batch: B sequences of L rows.
        context: rows that are looked at, in [1, L]; with L nothing is predicted.
        noise: standard normal (L, B, S).

    Returns:
        States (L, B, …): posterior samples for the first `context` rows, prior samples after them.
    """
    seen, _ = observe(world_model, batch.map(lambda part: part[:, :context]), noise[:context])
    if context == len(noise):
        return seen
    last = seen.map(lambda part: part[-1])
    foreseen = world_model.rssm.follow(last, batch.action[:, context:].transpose(0, 1), noise[context:])
    return State(*(torch.cat(parts) for parts in zip(seen, foreseen, strict=True)))


@torch.no_grad()
def draw(world_model: WorldModel, feature: Tensor) -> Tensor | None:
    """Mean images (…, 64, 64, 3) in about ±0.5 of features (…, F); None where the objective draws none."""
    drawn = []
    for part in feature.flatten(0, -2).split(_DRAWN_AT_ONCE):
        images = world_model.objective.draw(part)
        if images is None:
            return None
        drawn.append(images)
    return torch.cat(drawn).permute(0, 2, 3, 1).unflatten(0, feature.shape[:-1])


def image_error(drawn: Tensor, truth: Tensor) -> Tensor:
    """½‖ô − o‖² of images (…, 64, 64, 3), in nats: the KL between unit-variance Normals around them → (…)."""
    return 0.5 * (drawn - truth).square().sum((-3, -2, -1))


def log_density(value: Tensor, state: State) -> Tensor:
    """ln N(value; mean, std) of values (…, S) under states (…), summed over S, in nats."""
    return normal_log_prob(state.mean, state.std, value).sum(-1)


def expected_log_density(state: State) -> Tensor:
    """E[ln N(s; mean, std)] for s drawn from states (…) themselves: minus their entropy, summed over S, in nats."""
    return (-state.std.log() - 0.5 * (1.0 + LOG_2PI)).sum(-1)


class ConfidenceAndError(NamedTuple):
    """How sure the model was at each open-loop step, and how wrong; (T, N) each, in nats.

    Attributes:
        sample_density: ln density of the sampled open-loop state under the prior it was drawn from. BIRD's confidence
            sums this over the steps.
        expected_density: the same in expectation over that sample, minus the prior's entropy.
        posterior_density: ln density, under the open-loop prior, of the state filtered from the real images.
        kl: KL(posterior of the real images ‖ open-loop prior).
        image_error: ½‖ô − o‖² of the open-loop image; None where the objective draws none.
    """

    sample_density: Tensor
    expected_density: Tensor
    posterior_density: Tensor
    kl: Tensor
    image_error: Tensor | None


@torch.no_grad()
def foresee(
    world_model: WorldModel, posterior: State, action: Tensor, image: Tensor, starts: Tensor, noise: Tensor
) -> ConfidenceAndError:
    """Predicts T steps from each of N rows of one sequence under its stored actions, and holds them against it.

    Args:
        world_model: predicts.
        posterior: the sequence's filtered states (L, …).
        action: (L, A), the action that led to each row.
        image: uint8 (L, 64, 64, 3).
        starts: rows (N,) to start from, each at most L − 1 − T.
        noise: standard normal (T, N, S).
    """
    reached = starts + 1 + torch.arange(len(noise)).unsqueeze(-1)  # (T, N)
    foreseen = world_model.rssm.follow(posterior.map(lambda part: part[starts]), action[reached], noise)
    came = posterior.map(lambda part: part[reached])  # (T, N, …)
    drawn = draw(world_model, foreseen.feature)
    return ConfidenceAndError(
        sample_density=log_density(foreseen.stoch, foreseen),
        expected_density=expected_log_density(foreseen),
        posterior_density=log_density(came.stoch, foreseen),
        kl=gaussian_kl(came, foreseen),
        image_error=None if drawn is None else image_error(drawn, image[reached].float() / 255.0 - 0.5),
    )
