"""Two ways to take the entropy of a tanh-Normal policy (BIRD section 4.2)."""

from __future__ import annotations

from torch import Tensor

from common.config import Entropy
from learner.distributions import TanhNormal


def entropy_noise_shape(form: Entropy, samples: int, *leading: int) -> tuple[int, ...]:
    """Shape of the standard normal noise that `policy_entropy` wants for distributions (..., A) = `leading`."""
    return (samples, *leading) if form == "tanh_normal" else (0,)


def policy_entropy(policy: TanhNormal, form: Entropy, noise: Tensor) -> Tensor:
    """Entropy of the policy at each state, in nats (...).

    `tanh_normal`: −mean of ln π over samples, of the squashed action itself, at most A·ln 2; `gaussian`: of the
    Gaussian before the tanh, Σ_A ½·ln(2πe·σ²) (BIRD, eq. 10), without bound.

    Args:
        policy: distributions (..., A).
        form: which of the two.
        noise: standard normal (samples, ..., A), or empty for `gaussian`.
    """
    if form == "gaussian":
        return policy.entropy_before_tanh()
    return -policy.log_prob_from_pretanh(policy.pre_tanh_sample(noise)).mean(0)
