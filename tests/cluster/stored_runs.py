"""Run folders whose replay was filled by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.replay_data.opening import open_data
from common.config import Config, EnvironmentConfig
from common.presets import smoke
from common.run_folder import RunFolder
from common.sequence import Chunk
from replay_service.codec import encode
from replay_service.replay import open_replay
from replay_service.stock import in_order
from tests.redis_server import RedisServer

TINY = replace(smoke(), task="tests.tiny:make", environment=EnvironmentConfig(action_repeat=2, time_limit=24))


def stored_run(folder: Path, *shards: Sequence[Chunk], config: Config = TINY) -> Config:
    """A run that holds these chunks, the first shard's first; actions as the chunks have them."""
    config = replace(config, replay=replace(config.replay, shards=len(shards)))
    run = RunFolder(folder)
    run.create(config)
    for shard, chunks in enumerate(shards):
        replay = open_replay(config, run.replay, shard, chunks[0].rows.action.shape[1])
        replay.insert(*(encode(chunk, pack=config.packs_images) for chunk in chunks))
        replay.close()
    return config


def chunks_of(folder: Path) -> list[Chunk]:
    """Every chunk of a run's replay, in order."""
    source = open_data(str(folder)).source
    chunks = [source.chunk(stored) for stored in in_order(source.stocks())]
    source.close()
    return chunks


def on_redis(server: RedisServer, prefix: str) -> Config:
    """Such a run with its replay on a server."""
    return replace(TINY, replay_store="redis", redis_url=server.url, redis_prefix=prefix)
