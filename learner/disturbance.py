"""What a decoder makes of states with noise on them: IDM's figure 1 as pictures and numbers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from learner.behaviors.idm import derive_memory
from learner.world_model.state import State

Form = Literal["added", "derived"]
FORMS: tuple[Form, ...] = ("added", "derived")


def disturb(state: State, sigma: float, form: Form, noise_h: Tensor, noise_s: Tensor) -> Tensor:
    """Features of K disturbed copies of each state.

    `added` is h' = h + σ·ξ_h, s' = s + σ·ξ_s: noise on the sampled state, as under IDM's figure 1 and in its constraint
    (eq. 1). `derived` is h' ~ N(h, σ²), s' ~ N(μ_s, (σ_s + σ)²): the memories that its agent dreams from (eq. 2); there
    even σ = 0 draws another s.

    Args:
        state: (N, …).
        sigma: standard deviation of the noise.
        form: where the noise goes.
        noise_h: standard normal (K, N, D).
        noise_s: standard normal (K, N, S).

    Returns:
        (K, N, S + D).
    """
    copies = len(noise_h)
    if form == "added":
        return torch.cat([state.stoch + sigma * noise_s, state.deter + sigma * noise_h], -1)
    deter, stoch = derive_memory(
        state.deter, state.mean, state.std, sigma, sigma, copies, noise_h.flatten(0, 1), noise_s.flatten(0, 1)
    )
    return torch.cat([stoch, deter], -1).unflatten(0, (copies, -1))
