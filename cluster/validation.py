"""Refuses configurations that cannot work, each in one line that names the flag and what it may be."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator

from common.config import Config
from common.errors import UserError
from common.presets import PRESETS
from learner.behaviors import BEHAVIORS
from learner.world_model.objectives import OBJECTIVES
from replay_service.limiter import RateLimiter, first_window_env_steps
from replay_service.stores import STORES

MAY_BE_ZERO = {
    "seed",
    "eval_every",
    "eval_rotation",
    "acting.noise",
    "replay.prefill",
    "replay.pretrain",
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
}
AT_MOST: dict[str, float] = {
    "env_steps": 10**12,
    "seed": 2**63 - 1,
    "horizon": 1000,
    "actors": 10_000,
    "envs_per_actor": 1000,
    "train_ratio": 100,
    "eval_episodes": 1000,
    "final_eval_episodes": 1000,
    "eval_rotation": 180,
    "environment.action_repeat": 100,
    "environment.time_limit": 1_000_000,
    "acting.noise": 10,
    "acting.mode_samples": 10_000,
    "replay.capacity": 10**12,
    "replay.chunk_rows": 1000,
    "replay.shards": 256,
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
    if config.replay.shards > config.actors:
        raise UserError(
            f"--replay.shards {config.replay.shards} is more than --actors {config.actors}: one would be empty"
        )
    if config.env_steps <= config.replay.prefill:
        raise UserError(
            f"--env-steps {config.env_steps} ends within --replay.prefill {config.replay.prefill}: "
            "nothing would be learnt"
        )
    if config.horizon < 2:
        raise UserError("--horizon must be at least 2: a return needs a state after the first")
    _validate_sequences(config)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, not '{config.device}'")
    RateLimiter.from_config(config)


def _validate_number(name: str, value: float) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag(name)} must be a finite number, not {value}")
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
        raise UserError(f"{flag(name)} must be {'zero or more' if name in MAY_BE_ZERO else 'positive'}, not {value}")
    if value > AT_MOST.get(name, 10**9):
        raise UserError(f"{flag(name)} must be at most {AT_MOST.get(name, 10**9):g}, not {value}")


def _validate_sequences(config: Config) -> None:
    rows = config.environment.time_limit // config.environment.action_repeat + 1
    if config.training.batch_length > rows:
        raise UserError(
            f"--training.batch-length {config.training.batch_length} is longer than an episode of {rows} rows "
            f"(time limit / action repeat + 1): no window could ever be drawn"
        )
    if config.training.batch_length < 2:
        raise UserError("--training.batch-length must be at least 2")
    size = config.training.batch_size * config.training.batch_length * 64 * 64 * 3
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
