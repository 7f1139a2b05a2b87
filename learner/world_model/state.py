"""The model state that everything learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class State(NamedTuple):
    """RSSM states with any leading axes.

    Attributes:
        deter: (..., D), the recurrent (deterministic) part h.
        mean: (..., S), mean of the stochastic part.
        std: (..., S), its standard deviation.
        stoch: (..., S), the sampled stochastic part s.
    """

    deter: Tensor
    mean: Tensor
    std: Tensor
    stoch: Tensor

    @property
    def feature(self) -> Tensor:
        """What heads and policy see: [stoch, deter], (..., S + D)."""
        return torch.cat([self.stoch, self.deter], -1)

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """The state with `function` applied to each part."""
        return State(*(function(part) for part in self))

    def detach(self) -> State:
        """The state cut from its graph."""
        return self.map(Tensor.detach)
