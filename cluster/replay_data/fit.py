"""Whether replay data fits a run, and to which of its shards each chunk goes."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.replay_data.waiting import showing
from common.config import Config
from common.errors import UserError
from replay_service.source import Facts, Source
from replay_service.stock import Stored, in_order
from replay_service.verification import read_all


def refuse_other_facts(name: str, facts: Facts, config: Config, action_size: int) -> None:
    """Raises UserError for data of another task, or with actions of another size or repeat, than the run's."""
    for what, found, wanted in (
        ("of task", facts.task, config.task),
        ("with actions of size", facts.action_size, action_size),
        ("with an action repeat of", facts.action_repeat, config.environment.action_repeat),
    ):
        if found != wanted:
            raise UserError(f"{name}: it is {what} {found}, this run {what} {wanted}")


def refuse_overflow(name: str, parts: Sequence[Sequence[Stored]], config: Config) -> None:
    """Raises UserError for data, by shard, that would push itself out of the run's replay."""
    capacity = config.replay.capacity // config.replay.shards
    most = max(env_steps(part, config.environment.action_repeat) for part in parts)
    if most > capacity:
        raise UserError(
            f"{name}: it holds more than --replay.capacity: {most:,} environment steps for a shard of {capacity:,}; "
            f"give at least {most * config.replay.shards}"
        )


def refuse_eviction(name: str, held: int, coming: int, config: Config) -> None:
    """Raises UserError for environment steps that would push out some of those that a shard of the run holds."""
    shards = config.replay.shards
    surplus = held + coming - config.replay.capacity // shards
    if coming and surplus > 0:
        raise UserError(
            f"{name}: {coming:,} environment steps would push {surplus:,} of the {held:,} that the run's shard holds "
            "out of --replay.capacity, which stays as the run was begun: export the run, and import both into a new "
            f"one with at least {(held + coming) * shards}"
        )


def refuse_damage(name: str, source: Source) -> None:
    """Reads all of the data; raises UserError if a chunk is damaged."""
    with showing(f"checking {name}") as progress:
        verdict = read_all(source, source.stocks(), progress)
    if verdict.damaged:
        raise UserError(f"{name}: {verdict.damaged[0]} (dreamfleet replay verify names every damaged chunk)")


def by_shard(source: Source, shards: int) -> list[list[Stored]]:
    """What each of a run's shards is to hold, in order: a chunk goes where a collector of its actor's number sends."""
    parts: list[list[Stored]] = [[] for _ in range(shards)]
    for stored in in_order(source.stocks()):
        parts[stored.key.actor % shards].append(stored)
    return parts


def env_steps(chunks: Sequence[Stored], action_repeat: int) -> int:
    """Environment steps of chunks."""
    return sum(stored.env_steps(action_repeat) for stored in chunks)
