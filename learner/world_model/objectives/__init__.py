"""Representation objectives by name: what, beside reward and KL, teaches the world model to see (Dreamer section 4).

A new objective is a file here and a line in `OBJECTIVES`.
"""

from __future__ import annotations

from learner.world_model.objectives.objective import Objective
from learner.world_model.objectives.reconstruction import Reconstruction

__all__ = ["OBJECTIVES", "Objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "reconstruction": Reconstruction,
}
