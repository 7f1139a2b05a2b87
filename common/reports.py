"""What the roles tell the coordinator: plain values, small enough to travel with every call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeReport:
    """One finished training episode: its undiscounted return and its length in environment steps."""

    episode_return: float
    env_steps: int
    weights_version: int


@dataclass(frozen=True)
class CollectReport:
    """One call of `Collector.collect`.

    Attributes:
        stepped: environment steps taken in this call.
        inserted: environment steps that the replay service acknowledged during this call.
        held: environment steps taken but not yet inserted (open partial chunks), after this call.
        episodes: the episodes that ended in this call.
        environment_failures: environments rebuilt after an exception.
        weights_version: the version the policy acts with.
        insert_wait_seconds: time spent waiting for acknowledgements.
        resident_bytes: memory of the collector's process.
    """

    stepped: int
    inserted: int
    held: int
    episodes: list[EpisodeReport]
    environment_failures: int
    weights_version: int
    insert_wait_seconds: float
    resident_bytes: int


@dataclass(frozen=True)
class UpdateReport:
    """One call of `Learner.update`: metrics are means over the call's updates."""

    updates: int
    metrics: dict[str, float]
    batch_wait_seconds: float
    update_seconds: float
    resident_bytes: int


@dataclass(frozen=True)
class ReplayReport:
    """What a replay shard holds: counts are of stored rows unless they say otherwise."""

    rows: int
    env_steps: int
    inserted_env_steps: int
    chunks: int
    episodes: int
    windows: int
    short_fragments: int
    bytes: int
    resident_bytes: int


@dataclass(frozen=True)
class EvaluationReport:
    """Returns of evaluation episodes at one rotation, with one named weights version.

    Attributes:
        weights_version: the version that acted; 0 is the uniform random policy.
        returns: one undiscounted return an episode.
        rotation_degrees: images were rotated by U(−this, this).
        frames: the episodes asked for as video, each uint8 (T, 64, 64, 3).
        wall_seconds: how long the evaluation took.
        resident_bytes: memory of the evaluator's process.
    """

    weights_version: int
    returns: list[float]
    rotation_degrees: float
    frames: list[NDArray[np.uint8]]
    wall_seconds: float
    resident_bytes: int
