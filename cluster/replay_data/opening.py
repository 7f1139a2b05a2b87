"""Opens replay data by what a user calls it: a run folder, a dataset, or `redis://host:port#PREFIX`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import lmdb.verify

from cluster.redis_access import count_shards, read_password, refuse_password, validate_redis
from common.config import Config, ReplayConfig
from common.errors import UserError
from common.run_folder import RunFolder
from replay_service.datasets import manifest
from replay_service.datasets.dataset import Dataset
from replay_service.source import Facts, Source, StoreSource
from replay_service.stores import open_reader
from replay_service.stores.interface import StoreReader
from replay_service.stores.lmdb import refuse_unsettled, shard_folder
from replay_service.stores.trouble import StoreDamagedError, StoreUnavailableError

URL_FORM = "redis://host:port#PREFIX"
LOOKS = 3
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Opened:
    """Replay data, and the configuration of its run, where that is known."""

    source: Source
    config: Config | None = None


def open_data(name: str, password_file: str = "", task: str = "", action_repeat: int = 0) -> Opened:
    """Opens replay data to read it; of a run that is going on, nothing is locked, written or waited for.

    Args:
        name: run folder, dataset, or what a run has as `--redis-url` and `--redis-prefix`, with a # between.
        password_file: of the Redis servers, instead of DREAMFLEET_REDIS_PASSWORD.
        task: what the environment is; for servers, which do not tell.
        action_repeat: environment steps a row; for servers, which do not tell.

    Raises:
        UserError: there is none of this name, or it cannot be read.
    """
    if "://" in name:
        return Opened(_on_servers(name, password_file, task, action_repeat))
    if task or action_repeat:
        raise UserError(
            f"{name} tells its task and action repeat itself: --task and --action-repeat go with {URL_FORM}"
        )
    if (Path(name) / manifest.NAME).is_file():
        return Opened(Dataset(Path(name)))
    folder = RunFolder(name)
    if not folder.exists:
        raise UserError(f"{name} is no run folder, no dataset and no {URL_FORM}")
    config = folder.load_config()
    return Opened(_of_run(config, folder, password_file), config)


def _of_run(config: Config, folder: RunFolder, password_file: str) -> Source:
    if config.replay_store == "lmdb":
        for shard in range(config.replay.shards):
            refuse_unsettled(shard_folder(folder.replay, shard))
            _refuse_damage(shard_folder(folder.replay, shard) / "data.mdb")
    password = read_password(password_file) if config.replay_store == "redis" else ""
    facts = Facts(config.task, 0, config.environment.action_repeat, config.algorithm, config.seed)
    return _read(config, folder.replay, password, facts)


def _on_servers(name: str, password_file: str, task: str, action_repeat: int) -> Source:
    refuse_password(name)
    urls, _, prefix = name.rpartition("#")
    if not urls or not prefix:
        raise UserError(f"{name}: name the run's keys behind the servers: {URL_FORM}")
    config = Config(replay_store="redis", redis_url=urls, redis_prefix=prefix)
    validate_redis(config)
    if action_repeat < 1:
        raise UserError(f"{name} does not tell the run's action repeat: give --action-repeat")
    password = read_password(password_file)
    shards = ReplayConfig(shards=count_shards(config, password))
    return _read(dataclasses.replace(config, replay=shards), Path(), password, Facts(task, 0, action_repeat))


def _read(config: Config, folder: Path, password: str, facts: Facts) -> Source:
    readers: list[StoreReader] = []
    try:
        readers += (open_reader(config, folder, shard, password) for shard in range(config.replay.shards))
    except StoreUnavailableError as error:
        raise UserError(str(error)) from None
    return StoreSource(dataclasses.replace(facts, action_size=readers[0].action_size), readers)


def _refuse_damage(file: Path) -> None:
    """Looks at an LMDB file before LMDB does, which trusts it and may crash over a damaged one.

    What a writer changes meanwhile looks damaged too, so a file that changes while it is looked at passes: its writer
    made sure of it.

    Raises:
        StoreDamagedError: the file is damaged.
    """
    problem = ""
    for _ in range(LOOKS):
        if not file.exists():
            return
        before = file.stat()
        problem = _problem(file)
        if not problem or file.stat().st_mtime_ns != before.st_mtime_ns:
            return
        time.sleep(PAUSE_SECONDS)
    raise StoreDamagedError(f"{file} is damaged: {problem}")


def _problem(file: Path) -> str:
    try:
        return next(iter(lmdb.verify.verify(str(file))), "")
    except lmdb.verify.VerifyError as error:
        return str(error)
