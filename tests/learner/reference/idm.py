"""IDM's equations, state by state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tests.learner.reference.rssm import Belief, ReferenceRSSM


class Steps(NamedTuple):
    """Transitions (T, F), (T, A), (T, F) of one segment."""

    before: np.ndarray
    action: np.ndarray
    after: np.ndarray


def derive_memory(
    belief: Belief, sigma_h: float, sigma_n: float, copies: int, noise_h: np.ndarray, noise_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 2: h' ~ N(h, sigma_h²), s' ~ N(mu_s, (sigma_s + sigma_n)²); copy k of state n is row k · N + n."""
    deter, stoch = np.zeros(noise_h.shape), np.zeros(noise_s.shape)
    count = len(belief.deter)
    for k in range(copies):
        for n in range(count):
            row = k * count + n
            deter[row] = belief.deter[n] + sigma_h * noise_h[row]
            stoch[row] = belief.mean[n] + (belief.std[n] + sigma_n) * noise_s[row]
    return deter, stoch


def reliability_weight(probability: np.ndarray) -> np.ndarray:
    """Eq. 4, times the count: (W + 1e-12) / sum · count."""
    raised = probability + 1e-12
    return raised / raised.sum() * raised.size


def evaluator_loss(real_logit: np.ndarray, fake_logit: np.ndarray) -> float:
    """Eq. 3 as a loss: −mean ln E(real) − mean ln(1 − E(fake)), with ln sigmoid(x) = −ln(1 + e^−x)."""
    return float(np.logaddexp(0.0, -real_logit).mean() + np.logaddexp(0.0, fake_logit).mean())


def decoding_constraint(drawn: np.ndarray, disturbed: np.ndarray, delta: float) -> float:
    """Mean over images of max(1/2 · squared distance − delta, 0)."""
    total = 0.0
    for one, other in zip(drawn, disturbed, strict=True):
        total += max(0.5 * float(((other - one) ** 2).sum()) - delta, 0.0)
    return total / len(drawn)


def segment_starts(length: int, overshoot: int) -> list[int]:
    """Rows 0, T, 2T, ... while t + T is a row of the window."""
    return [t for t in range(0, length, overshoot) if t + overshoot <= length - 1]


def real_segment(posterior: Belief, action: np.ndarray, sequence: int, start: int, overshoot: int) -> Steps:
    """(z_t, action[t + 1], z_{t + 1}) for T steps of one sequence; posterior and action (L, B, ...)."""
    rows = range(start, start + overshoot)
    return Steps(
        before=np.stack([posterior.feature[t, sequence] for t in rows]),
        action=np.stack([action[t + 1, sequence] for t in rows]),
        after=np.stack([posterior.feature[t + 1, sequence] for t in rows]),
    )


def overshoot_segment(
    rssm: ReferenceRSSM, posterior: Belief, action: np.ndarray, sequence: int, start: int, noise: np.ndarray
) -> Steps:
    """From the real state on, T prior samples under the stored actions; noise (T, S)."""
    fields = ("deter", "mean", "std", "stoch")
    state = Belief(*(getattr(posterior, field)[start, sequence][None] for field in fields))
    before, taken, after = [], [], []
    for step, draw in enumerate(noise):
        before.append(state.feature[0])
        taken.append(action[start + step + 1, sequence])
        state = rssm.prior(state, taken[-1][None], draw[None])
        after.append(state.feature[0])
    return Steps(np.stack(before), np.stack(taken), np.stack(after))
