"""What the roles tell the coordinator: plain values, small enough to travel with every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.usage import Usage


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
        usage: of the collector's process.
    """

    stepped: int
    inserted: int
    held: int
    episodes: list[EpisodeReport]
    environment_failures: int
    weights_version: int
    insert_wait_seconds: float
    usage: Usage


@dataclass(frozen=True)
class GpuUse:
    """The learner's GPU: how busy it was lately (0 to 1; None where NVIDIA's library is not there), and its memory."""

    busy: float | None
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class UpdateReport:
    """One call of `Learner.update`: metrics are means over the call's updates, seconds are sums.

    Attributes:
        gpu: None where the learner computes on the CPU.
        lost: why another of several learners cannot be reached any more; empty while all can. The metrics are then of
            this one's share alone.
        batch_bytes: that the learner's device was given for its batches.
    """

    updates: int
    metrics: dict[str, float]
    batch_wait_seconds: float
    update_seconds: float
    usage: Usage
    gpu: GpuUse | None = None
    lost: str = ""
    batch_bytes: int = 0


@dataclass(frozen=True)
class ReplayReport:
    """What a replay shard holds: counts are of stored rows unless they say otherwise.

    Attributes:
        inserted_chunks: newly stored since the shard's process began.
        sampled_sequences: drawn since the shard's process began.
        life: another one whenever the shard has begun anew or its store was out of reach: of what was under way then,
            some may be stored that nobody was told of.
        trouble: why the store takes or gives nothing now; empty while it does.
        process: another one whenever the shard's process has begun anew.
    """

    rows: int
    env_steps: int
    inserted_env_steps: int
    chunks: int
    episodes: int
    windows: int
    short_fragments: int
    bytes: int
    inserted_chunks: int
    sampled_sequences: int
    usage: Usage
    life: str = ""
    trouble: str = ""
    process: str = ""


class Film(NamedTuple):
    """What people see of an evaluation.

    Attributes:
        mp4: all recorded episodes side by side, H.264.
        gif: the first of them, endlessly repeating.
    """

    mp4: bytes
    gif: bytes


@dataclass(frozen=True)
class EvaluationReport:
    """Returns of evaluation episodes at one rotation, with one named weights version.

    Attributes:
        weights_version: the version that acted; 0 is the uniform random policy.
        returns: one undiscounted return an episode.
        rotation_degrees: images were rotated by U(−this, this).
        frames: the episodes that were to be recorded, each uint8 (T, 64, 64, 3); none if they were to be filmed.
        film: of the episodes that were to be filmed.
        wall_seconds: how long the evaluation took.
        usage: of the evaluator's process.
    """

    weights_version: int
    returns: list[float]
    rotation_degrees: float
    frames: list[NDArray[np.uint8]]
    film: Film | None
    wall_seconds: float
    usage: Usage
