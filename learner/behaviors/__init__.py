"""Behaviours by name: what is learnt in the world model's imagination, and how it acts.

A new behaviour is a file here and a line in `BEHAVIORS`.
"""

from __future__ import annotations

from learner.behaviors.behavior import Acting, Behavior
from learner.behaviors.dreamer import Dreamer

__all__ = ["BEHAVIORS", "Acting", "Behavior"]

BEHAVIORS: dict[str, type[Behavior]] = {
    "dreamer": Dreamer,
}
