"""Behaviours by name: what is learnt in the world model's imagination, and how it acts.

A new behaviour is a file here and a line in `BEHAVIORS`.
"""

from __future__ import annotations

from learner.behaviors.behavior import Acting, Behavior
from learner.behaviors.bird import Bird
from learner.behaviors.dreamer import Dreamer
from learner.behaviors.idm import Idm
from learner.behaviors.no_value import NoValue
from learner.behaviors.planet import Planet, RandomShooting
from learner.behaviors.soft_bird import SoftBird

__all__ = ["BEHAVIORS", "Acting", "Behavior"]

BEHAVIORS: dict[str, type[Behavior]] = {
    "dreamer": Dreamer,
    "no_value": NoValue,
    "bird": Bird,
    "soft_bird": SoftBird,
    "idm": Idm,
    "planet": Planet,
    "random_shooting": RandomShooting,
}
