"""`dreamfleet replay import`: a dataset into the replay of a run that is to go on from it."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from actors.rendering import probe
from cluster.flags import parse
from cluster.redis_access import check_servers, read_password
from cluster.replay_data.fit import (
    by_shard,
    env_steps,
    refuse_damage,
    refuse_eviction,
    refuse_other_facts,
    refuse_overflow,
)
from cluster.replay_data.waiting import showing
from cluster.runtimes.patience import patiently
from cluster.settings import changes_on_resume, resolve_base
from cluster.train import with_redis_prefix
from cluster.validation import validate
from common.config import Config
from common.errors import UserError
from common.run_folder import RunFolder
from common.sequence import ChunkKey
from replay_service.codec import encode
from replay_service.datasets import manifest
from replay_service.datasets.dataset import Dataset
from replay_service.replay import Replay, open_replay
from replay_service.stock import Stored

GROUP = 8
FIRST_IMPORTED_ACTOR = 2**52  # every JSON parser keeps numbers below 2^53


@dataclass(frozen=True)
class ImportArguments:
    """Inserts a dataset into a run's replay; `dreamfleet train` with the same flags goes on from there.

    A run folder that is there is taken as it is, and must not be in use; a new one takes the flags of dreamfleet train.
    The same command again inserts nothing twice.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Dataset, as dreamfleet replay export writes it."""
    settings: Annotated[Config, tyro.conf.arg(name="")]
    run_dir: Path
    """Run folder: made if it is not there."""
    config: str = ""
    """YAML file whose values replace the preset's; flags come on top."""
    redis_password_file: str = ""
    """File with the password of the Redis servers, instead of DREAMFLEET_REDIS_PASSWORD; written nowhere."""


def main(args: Sequence[str]) -> int:
    """Runs the action; returns the exit code."""
    arguments, folder = _parsed(args)
    config, data, name = arguments.settings, Dataset(arguments.data), str(arguments.data)
    password = _password(config, arguments.redis_password_file)
    refuse_other_facts(name, data.facts, config, probe(config.task, config.environment).action_size)
    parts = by_shard(data, config.replay.shards)
    refuse_overflow(name, parts, config)
    refuse_damage(name, data)
    folder.lock()
    try:
        if not folder.exists:
            folder.create(config)
        stored = _insert(data, parts, config, folder.replay, password)
    finally:
        folder.unlock()
    total = data.manifest.counts.env_steps
    there = f"; the other {total - stored:,} were there already" if stored < total else ""
    print(f"{folder.path}: {stored:,} environment steps imported{there}")
    return 0


def _parsed(args: Sequence[str]) -> tuple[ImportArguments, RunFolder]:
    """The arguments, validated, and the run folder; a run that is there needs no flags, and allows no others."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("data", nargs="?")
    early.add_argument("--redis-password-file")
    early.add_argument("--run-dir", default="")
    try:
        known, flags = early.parse_known_args(list(args))
    except argparse.ArgumentError as error:
        raise UserError(f"{error} (see dreamfleet replay import --help)") from None
    folder = RunFolder(known.run_dir)
    saved = folder.load_config() if known.run_dir and folder.exists else None
    base = saved if saved is not None and not flags else resolve_base(args)
    default = ImportArguments(data=tyro.MISSING, settings=base, run_dir=tyro.MISSING)
    arguments = parse(ImportArguments, "replay import", args, default)
    settings = with_redis_prefix(arguments.settings, folder)
    validate(settings)
    if saved is not None:
        changes_on_resume(saved, settings)
    if settings.offline:
        raise UserError("a run that trains with --offline takes its data from there: import into another run")
    if settings.replay_store == "memory":
        raise UserError("the memory store would forget what is imported: choose another --replay-store")
    return dataclasses.replace(arguments, settings=settings), folder


def _password(config: Config, file: str) -> str:
    """The password of the run's servers, which are asked whether they will do."""
    if config.replay_store != "redis":
        return ""
    password = read_password(file)
    check_servers(config, password)
    return password


def _insert(
    data: Dataset, parts: Sequence[Sequence[Stored]], config: Config, replay_folder: Path, password: str
) -> int:
    """Inserts what is not there yet; its environment steps.

    Raises:
        UserError: a shard would have to give up some of what it holds; nothing was inserted.
    """
    identity, stored_env_steps, done = manifest.identity(data.manifest), 0, 0
    with ExitStack() as stack, showing("importing") as progress:
        replays: list[Replay] = []
        for shard, part in enumerate(parts):
            build = partial(open_replay, config, replay_folder, shard, data.facts.action_size, password)
            replay = stack.enter_context(closing(patiently(build, config.redis_timeout)))
            coming = [stored for stored in part if replay.takes(_renamed(stored.key, identity))]
            new = env_steps(coming, config.environment.action_repeat)
            refuse_eviction(str(data.folder), replay.report().env_steps, new, config)
            replays.append(replay)
        for replay, part in zip(replays, parts, strict=True):
            for start in range(0, len(part), GROUP):
                chunks = [data.chunk(stored) for stored in part[start : start + GROUP]]
                renamed = [dataclasses.replace(chunk, key=_renamed(chunk.key, identity)) for chunk in chunks]
                encoded = [encode(chunk, pack=config.packs_images) for chunk in renamed]
                stored_env_steps += patiently(partial(replay.insert, *encoded), config.redis_timeout)
                done += len(chunks)
                progress(done, len(data.chunks))
    return stored_env_steps


def _renamed(key: ChunkKey, identity: str) -> ChunkKey:
    """A key that no run gives, and that the chunk gets whenever this dataset is imported."""
    digest = hashlib.sha256(f"{identity} {key.actor}".encode()).digest()
    return key._replace(actor=FIRST_IMPORTED_ACTOR + int.from_bytes(digest[:8]) % FIRST_IMPORTED_ACTOR)
