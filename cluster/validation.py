"""Refuses configurations that cannot work, each in one line that names the flag and what it may be."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator

from cluster.redis_access import validate_redis
from common.config import Config
from common.errors import UserError
from common.presets import PRESETS
from learner.behaviors import BEHAVIORS
from learner.world_model.objectives import OBJECTIVES
from replay_service.limiter import first_window_env_steps
from replay_service.offline_limiter import limiter_of
from replay_service.stores import STORES

MAY_BE_ZERO = {
    "seed",
    "eval_every",
    "eval_rotation",
    "metrics_port",
    "actors_min",
    "actors_max",
    "acting.noise",
    "replay.prefill",
    "replay.pretrain",
    "replay.recent_fraction",
    "replay.priority_exponent",
    "training.learner_threads",
    "world_model.min_std",
    "world_model.free_nats",
    "world_model.reward_layers",
    "world_model.discount_layers",
    "world_model.kl_scale",
    "dreamer.actor_layers",
    "dreamer.value_layers",
    "dreamer.gamma",
    "dreamer.return_lambda",
    "dreamer.mean_scale",
    "dreamer.init_std",
    "dreamer.min_std",
    "dreamer.value_target_every",
    "world_model.contrastive_layers",
    "bird.entropy_weight",
    "soft_bird.alpha",
    "idm.copies",
    "idm.rho",
    "idm.delta",
    "idm.sigma_h",
    "idm.sigma_n",
    "idm.evaluator_layers",
}
AT_MOST: dict[str, float] = {
    "env_steps": 10**12,
    "seed": 2**63 - 1,
    "horizon": 1000,
    "actors": 10_000,
    "actors_min": 10_000,
    "actors_max": 10_000,
    "envs_per_actor": 1000,
    "learners": 1024,
    "train_ratio": 100,
    "eval_episodes": 1000,
    "final_eval_episodes": 1000,
    "eval_rotation": 180,
    "metrics_port": 65_535,
    "environment.action_repeat": 100,
    "environment.time_limit": 1_000_000,
    "acting.noise": 10,
    "acting.mode_samples": 10_000,
    "acting.threads": 1024,
    "replay.capacity": 10**12,
    "replay.chunk_rows": 1000,
    "replay.shards": 256,
    "replay.recent_fraction": 1,
    "replay.priority_exponent": 1,
    "replay.sync_seconds": 3600,
    "training.batch_size": 10_000,
    "training.batch_length": 10_000,
    "training.learner_threads": 1024,
    "world_model.deter": 10_000,
    "world_model.stoch": 10_000,
    "world_model.hidden": 10_000,
    "world_model.depth": 512,
    "world_model.reward_units": 10_000,
    "world_model.discount_units": 10_000,
    "world_model.reward_layers": 16,
    "world_model.discount_layers": 16,
    "world_model.learning_rate": 1,
    "dreamer.units": 10_000,
    "dreamer.actor_layers": 16,
    "dreamer.value_layers": 16,
    "dreamer.gamma": 1,
    "dreamer.return_lambda": 1,
    "dreamer.actor_learning_rate": 1,
    "dreamer.value_learning_rate": 1,
    "world_model.contrastive_layers": 16,
    "world_model.contrastive_units": 10_000,
    "bird.entropy_samples": 10_000,
    "soft_bird.entropy_samples": 10_000,
    "idm.copies": 100,
    "idm.sigma_h": 100,
    "idm.sigma_n": 100,
    "idm.overshoot": 1000,
    "idm.evaluator_layers": 16,
    "idm.evaluator_units": 10_000,
    "idm.evaluator_learning_rate": 1,
    "planet.horizon": 1000,
    "planet.candidates": 1_000_000,
    "planet.iterations": 1000,
    "planet.top": 1_000_000,
}
BATCH_BYTES_LIMIT = 8 * 2**30


def flag(name: str) -> str:
    """A configuration field's flag: `replay.chunk_rows` → `--replay.chunk-rows`."""
    return "--" + name.replace("_", "-")


def leaves(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every field of a configuration tree, by dotted name."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # `object` here is any dataclass
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def choose(what: str, value: str, choices: Iterable[str]) -> None:
    """Raises UserError unless `value` is one of `choices`; names the nearest."""
    names = sorted(choices)
    if value not in names:
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown {what} '{value}': {hint}choose from {', '.join(names)}")


def validate(config: Config) -> None:
    """Raises UserError for the first value that is impossible or absurd."""
    choose("preset", config.preset, PRESETS)
    choose("algorithm", config.algorithm, BEHAVIORS)
    choose("objective", config.objective, OBJECTIVES)
    choose("replay store", config.replay_store, STORES)
    for name, value in leaves(config):
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                _validate_number(name, number)
    if not config.eval_rotation:
        raise UserError("--eval-rotation needs at least one angle; 0 leaves images as they are")
    if config.runtime == "ray" and ":" in config.device:
        raise UserError(f"--device {config.device}: with --runtime ray, Ray chooses the GPU; give --device cuda")
    _validate_actors(config)
    _validate_learners(config)
    if config.replay.recent_windows < config.replay.shards:
        raise UserError(
            f"--replay.recent-windows {config.replay.recent_windows} is below --replay.shards {config.replay.shards}: "
            "the newest windows are shared out among them"
        )
    if config.env_steps <= config.replay.prefill:
        raise UserError(
            f"--env-steps {config.env_steps} ends within --replay.prefill {config.replay.prefill}: "
            "nothing would be learnt"
        )
    validate_redis(config)
    _validate_algorithm(config)
    _validate_sequences(config)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, not '{config.device}'")
    limiter_of(config)


def _validate_learners(config: Config) -> None:
    if config.runtime == "inline" and config.learners > 1:
        raise UserError(
            f"--learners {config.learners} needs --runtime ray: each is a process, and inline has one process"
        )
    if config.sequences % config.learners:
        raise UserError(
            f"--learners {config.learners}: a batch of {config.sequences} sequences does not divide by it; "
            "change one of the two (--training.batch-size)"
        )


def _validate_number(name: str, value: float) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag(name)} must be a finite number, not {value}")
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
        raise UserError(f"{flag(name)} must be {'zero or more' if name in MAY_BE_ZERO else 'positive'}, not {value}")
    if value > AT_MOST.get(name, 10**9):
        raise UserError(f"{flag(name)} must be at most {AT_MOST.get(name, 10**9):g}, not {value}")


def _validate_actors(config: Config) -> None:
    least, most = config.least_actors, config.most_actors
    least_flag = "--actors-min" if config.actors_min else "--actors"
    if least > most:
        most_flag = "--actors-max" if config.actors_max else "--actors"
        raise UserError(f"{least_flag} {least} is more than {most_flag} {most}: give --actors-min and --actors-max")
    if least != most and config.runtime == "inline":
        raise UserError("--actors-min and --actors-max need --runtime ray: inline, collectors take turns, none waits")
    if config.replay.shards > least and not config.offline:
        raise UserError(f"--replay.shards {config.replay.shards} is more than {least_flag} {least}: one would be empty")


def _validate_algorithm(config: Config) -> None:
    if config.horizon < 2 and config.algorithm != "no_value":
        raise UserError("--horizon must be at least 2: a return needs a state after the first")
    if config.planet.top > config.planet.candidates:
        raise UserError(
            f"--planet.top {config.planet.top} is more than --planet.candidates {config.planet.candidates}: "
            "there would be nothing to choose"
        )
    if config.algorithm != "idm":
        return
    idm = config.idm
    if config.objective != "reconstruction" and idm.rho > 0 and idm.ablation != "without_both":
        raise UserError(
            f"--objective {config.objective} draws no images, which idm's decoding constraint compares: "
            "give --objective reconstruction, or --idm.rho 0 to do without the constraint"
        )
    if idm.overshoot >= config.training.batch_length and idm.ablation != "without_evaluator":
        raise UserError(
            f"--idm.overshoot {idm.overshoot} must be below --training.batch-length {config.training.batch_length}: "
            "the evaluator would see no segment"
        )


def _validate_sequences(config: Config) -> None:
    rows = config.environment.time_limit // config.environment.action_repeat + 1
    if config.training.batch_length > rows:
        raise UserError(
            f"--training.batch-length {config.training.batch_length} is longer than an episode of {rows} rows "
            f"(time limit / action repeat + 1): no window could ever be drawn"
        )
    if config.training.batch_length < 2:
        raise UserError("--training.batch-length must be at least 2")
    size = config.sequences * config.training.batch_length * 64 * 64 * 3
    if size > BATCH_BYTES_LIMIT:
        raise UserError(f"a batch of {size / 2**30:.0f} GiB of images is too large: lower --training.batch-size")
    if config.replay.capacity < config.replay.prefill:
        raise UserError(
            f"--replay.capacity {config.replay.capacity} is below --replay.prefill {config.replay.prefill}: "
            "training would never begin"
        )
    window = first_window_env_steps(config)
    if config.replay.capacity // config.replay.shards < window:
        raise UserError(
            f"--replay.capacity {config.replay.capacity} over {config.replay.shards} shards may never hold a whole "
            f"window of {config.environments} environments; give at least {window * config.replay.shards}"
        )
