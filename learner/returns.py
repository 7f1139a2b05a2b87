"""Returns of imagined trajectories (Dreamer section 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_return(reward: Tensor, value: Tensor, discount: Tensor, lambda_: float) -> Tensor:
    """λ-returns R_1 … R_{H−1} of imagined trajectories (Dreamer, eq. 6, in recursive form).

    R_H = v_H, and for τ = H−1 … 1: R_τ = r_τ + γ_τ · ((1 − λ) · v_{τ+1} + λ · R_{τ+1}).

    Args:
        reward: (H, N), r_τ at imagined state τ.
        value: (H, N), v_τ.
        discount: (H, N), γ_τ.
        lambda_: mixing, 0 (one step) to 1 (the whole horizon).

    Returns:
        (H − 1, N).
    """
    one_step = reward[:-1] + (1.0 - lambda_) * discount[:-1] * value[1:]
    weight = lambda_ * discount[:-1]
    following = value[-1]
    returns = []
    for step in range(len(one_step) - 1, -1, -1):
        following = one_step[step] + weight[step] * following
        returns.append(following)
    return torch.stack(returns[::-1])


def cumulative_discount(discount: Tensor) -> Tensor:
    """Weights D_1 = 1, D_τ = Π_{k<τ} γ_k of imagined steps (released Dreamer).

    Args:
        discount: (H, N), γ_τ.

    Returns:
        (H − 1, N), detached.
    """
    before = torch.cat([torch.ones_like(discount[:1]), discount[:-2]])  # (H − 1, N)
    return before.cumprod(0).detach()


def horizon_return(reward: Tensor, discount: Tensor) -> Tensor:
    """V_R(τ) = Σ_{n=τ..H} r_n · Π_{τ≤k<n} γ_k: rewards up to the horizon (Dreamer, eq. 4, where γ = 1).

    Args:
        reward: (H, N), r_τ.
        discount: (H, N), γ_τ.

    Returns:
        (H, N).
    """
    following = reward[-1]
    returns = [following]
    for step in range(len(reward) - 2, -1, -1):
        following = reward[step] + discount[step] * following
        returns.append(following)
    return torch.stack(returns[::-1])
