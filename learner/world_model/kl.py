"""The KL between posterior and prior, with free nats."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from learner.ranks import ALONE, Ranks
from learner.world_model.state import State


def gaussian_kl(posterior: State, prior: State) -> Tensor:
    """KL(posterior ‖ prior) of diagonal Gaussians, summed over S: states (..., S) → (...), in nats."""
    ratio = (posterior.std / prior.std).square()
    distance = ((posterior.mean - prior.mean) / prior.std).square()
    return 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1)


def kl_loss(
    posterior: State, prior: State, free_nats: float, clip: Literal["mean", "element"] = "mean", ranks: Ranks = ALONE
) -> Tensor:
    """max(E[KL(posterior ‖ prior)], free_nats), without β (PlaNet; algorithms section 2).

    Args:
        posterior: states (L, B, …).
        prior: states (L, B, …).
        free_nats: KL below this costs nothing.
        clip: "mean" takes the mean before the maximum (released Dreamer), "element" after it (the older release).
        ranks: who share the batch: the mean is over the whole of it.

    Returns:
        A scalar, in nats.
    """
    kl = gaussian_kl(posterior, prior)
    return ranks.mean(kl.mean()).clamp(min=free_nats) if clip == "mean" else kl.clamp(min=free_nats).mean()
