"""Builds each role, a plain class, in the process where it is to live."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from actors.collector import ChunkSink, Collector
from actors.evaluator import Evaluator
from actors.rendering import configure
from cluster.runtimes.patience import patiently
from common.config import Config
from common.cores import usable_cores
from common.seeding import derive_seed
from learner.feed import Batches
from learner.learner import Learner
from learner.policy import Policy
from learner.ranks import ALONE, Ranks
from replay_service.replay import Replay, open_replay


@dataclass(frozen=True)
class Setting:
    """What every role is built from.

    Attributes:
        config: the resolved configuration.
        action_size: A, read off the task.
        gl: the OpenGL backend chosen for this run.
        replay_folder: where the embedded store lives.
        device: where the learner computes, `auto` resolved.
        redis_password: of the replay's servers; never written anywhere.
    """

    config: Config
    action_size: int
    gl: Literal["auto", "egl", "osmesa"]
    replay_folder: Path
    device: str
    redis_password: str = field(default="", repr=False)


def build_policy(setting: Setting, *path: str | int) -> Policy:
    """A policy with a random stream of its own, on the CPU."""
    return Policy(setting.config, setting.action_size, derive_seed(setting.config.seed, *path))


def build_collector(setting: Setting, actor: int, incarnation: int, sink: ChunkSink) -> Collector:
    """A collector with its environments; sets the OpenGL backend of this process first."""
    _choose_gl(setting)
    policy = build_policy(setting, "collector", actor, incarnation)
    return Collector(setting.config, actor, incarnation, sink, policy)


def build_evaluator(setting: Setting) -> Evaluator:
    """An evaluator; sets the OpenGL backend of this process first."""
    _choose_gl(setting)
    return Evaluator(setting.config, build_policy(setting, "evaluator"))


def build_replay(setting: Setting, shard: int) -> Replay:
    """One replay shard, opened on what its store already holds, once that can be reached."""
    build = partial(
        open_replay, setting.config, setting.replay_folder, shard, setting.action_size, setting.redis_password
    )
    return patiently(build, setting.config.redis_timeout)


def build_learner(setting: Setting, batches: Batches, ranks: Ranks = ALONE) -> Learner:
    """A learner, on its device."""
    return Learner(setting.config, setting.action_size, batches, setting.device, ranks)


def learner_threads(config: Config) -> int:
    """CPU threads for each learner: as configured, or its part of all cores but one."""
    return config.training.learner_threads or max(1, (math.floor(usable_cores()) - 1) // config.learners)


def actor_environment(config: Config) -> dict[str, str]:
    """Environment variables of a collector's or evaluator's process: no GPU, and so many threads for every library."""
    return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(config.acting.threads)}


def _choose_gl(setting: Setting) -> None:
    if setting.gl != "auto":  # the task of a factory brings its own pictures
        configure(setting.gl)
