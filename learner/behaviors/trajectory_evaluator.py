"""IDM's trajectory evaluator: tells real transitions from overshoot ones (IDM section 4.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from learner.networks import ScalarHead
from learner.world_model.rssm import RSSM
from learner.world_model.state import State


class Transitions(NamedTuple):
    """Steps (z_τ, a_τ, z_{τ+1}) with a_τ the action taken in z_τ.

    Attributes:
        before: (T, M, F).
        action: (T, M, A).
        after: (T, M, F).
    """

    before: Tensor
    action: Tensor
    after: Tensor


class TrajectoryEvaluator(nn.Module):
    """E(z_τ, a_τ, z_{τ+1}): the logit of the probability that a transition is real."""

    def __init__(self, feature_size: int, action_size: int, layers: int, units: int) -> None:
        super().__init__()
        self.network = ScalarHead(2 * feature_size + action_size, layers, units)

    def forward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Features (..., F), actions (..., A), features (..., F) → logits (...)."""
        return self.network(torch.cat([before, action, after], -1))


def segment_count(length: int, overshoot: int) -> int:
    """Segments of T steps that a window of L rows holds: they start at rows 0, T, 2T, … while t + T ≤ L − 1."""
    return (length - 1) // overshoot


@torch.no_grad()
def real_and_overshoot(
    rssm: RSSM, posterior: State, action: Tensor, overshoot: int, noise: Tensor
) -> tuple[Transitions, Transitions]:
    """The evaluator's data: transitions between posterior states, and the model's own under the same actions.

    Args:
        rssm: predicts.
        posterior: states (L, B, …).
        action: (L, B, A), the action that led to each row.
        overshoot: T, steps of a segment; M = B · `segment_count` segments.
        noise: standard normal (T, M, S), of the predicted states.

    Returns:
        Real and fake, (T, M, …) each, detached; a fake segment starts from a real state.
    """
    segments = segment_count(len(action), overshoot)

    def cut(rows: Tensor) -> Tensor:
        """(segments · T, B, …) → (T, segments · B, …)."""
        return rows.unflatten(0, (segments, overshoot)).transpose(0, 1).flatten(1, 2)

    covered = segments * overshoot
    before = cut(posterior.feature[:covered])  # (T, M, F)
    taken = cut(action[1 : covered + 1])  # (T, M, A)
    after = cut(posterior.feature[1 : covered + 1])
    start = posterior.map(lambda part: cut(part[:covered])[0])  # (M, …)
    predicted = rssm.follow(start, taken, noise).feature  # (T, M, F)
    fake_before = torch.cat([start.feature[None], predicted[:-1]])
    return Transitions(before, taken, after), Transitions(fake_before, taken, predicted)
