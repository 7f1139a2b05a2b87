"""Reading replay data while its run inserts and evicts: nothing is torn, and the run notices nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.main import main
from common.config import Config
from common.run_folder import RunFolder
from replay_service.datasets.dataset import Dataset
from tests.cluster.commands import REPOSITORY
from tests.cluster.stored_runs import TINY, on_redis
from tests.redis_server import RedisServer
from tests.replay_service.episodes import assert_same, make_rows

WRITER = """
import itertools, sys
from common.run_folder import RunFolder
from common.sequence import Chunk, ChunkKey
from replay_service.codec import encode
from replay_service.replay import open_replay
from tests.replay_service.episodes import STREAM, make_rows

run = RunFolder(sys.argv[1])
replay = open_replay(run.load_config(), run.replay, 0, 3)
for number in itertools.count():
    episode, index = divmod(number, 4)
    rows = make_rows(STREAM, episode, 3 * index, 3)
    replay.insert(encode(Chunk(ChunkKey(*STREAM, episode, index), rows, index == 3)))
    print(number, flush=True)
"""


@contextmanager
def writing(folder: Path, config: Config) -> Iterator[subprocess.Popen[str]]:
    """A process that inserts into the run's replay until the block ends; it fails if anything disturbs it."""
    RunFolder(folder).create(config)
    args = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(args, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while int(process.stdout.readline()) < 150:  # the capacity is 60 chunks
                pass
            yield process
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_a_run_that_goes_on_is_read_and_not_disturbed(
    store: str, tmp_path: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TINY if store == "lmdb" else on_redis(redis_server, tmp_path.name)
    config = replace(config, replay=replace(config.replay, capacity=60 * 3 * 2, prefill=100))
    run, data = tmp_path / "run", tmp_path / "data"
    with writing(run, config):
        for _ in range(5):
            assert main(["replay", "verify", str(run)]) == 0, capsys.readouterr()
            assert main(["replay", "stats", str(run)]) == 0
        assert main(["replay", "export", str(run), "--out", str(data)]) == 0
    exported = Dataset(data)
    exported.check()
    assert exported.manifest.counts.chunks > 20
    for stored in exported.chunks:
        rows = make_rows(stored.key.stream, stored.key.episode, 3 * stored.key.index, 3)
        assert_same(exported.chunk(stored).rows, rows)
