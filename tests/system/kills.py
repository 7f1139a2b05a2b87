"""kill -9 of shard, Redis server and inserting actors at random moments, with exact accounts.

    python -m tests.system.kills --store lmdb --kills 50 --seed 0 --capacity 20000

Actors insert into one shard over Ray, as fast as it takes their chunks, and write down what was acknowledged outside of
the store. Samplers read all the while, through the service, with rows that stay in a memory of their own and without,
and, where there is a file, from it. At the end every chunk
that was acknowledged is in the store once, with the bytes it was made with, in order and without a gap; every window
that was drawn was rows of one episode that follow each other; and the store's counter is the sum of what it holds.

Two kills in three come when all is at work again, the others at any moment of a recovery.

With `--capacity` the oldest chunks leave meanwhile; what is left must be the newest, and the counter the sum of all.

Prints {"store", "kills", "seconds", "acknowledged_chunks", "env_steps", "windows", …}; what is wrong is a traceback.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import ray
import torch

from cluster.runtimes.assembly import DeviceAssembly, HostAssembly
from cluster.runtimes.ray_batches import RayBatches
from cluster.runtimes.ray_runtime import connect, start_shard
from cluster.runtimes.ray_sink import RaySink
from cluster.runtimes.roles import Setting
from common.config import Config, EnvironmentConfig, ReplayConfig, TrainingConfig
from common.errors import NoWindowsError
from common.sequence import ChunkKey, Rows, StreamKey
from learner.device_rows import DeviceRows
from learner.feed import Feed
from replay_service.codec import decode
from replay_service.stores import open_store
from tests.redis_server import RedisServer
from tests.system.witness import ACTION_SIZE, REPEAT, Contents, assert_accounts, assert_window, chunks_of

INSERTERS = 2
ENVIRONMENTS = 3
LENGTH = 8
WINDOWS = 16
ROWS_THAT_STAY = 1000
PATIENCE = 600.0
QUIET_SECONDS = (0.0, 1.0)
WAITED_FOR = 2 / 3
AWAY_SECONDS = (0.0, 1.5)
VICTIMS = {"lmdb": ("shard", "shard", "inserter"), "redis": ("shard", "server", "server", "inserter")}


@ray.remote(num_cpus=1)
class Inserter:
    """Inserts the chunks of its streams without end, and writes their names down once they are acknowledged."""

    def __init__(self, shard: Any, actor: int, incarnation: int, pack: bool, ledger: str) -> None:
        self.sink = RaySink(shard, pack, PATIENCE)
        self.streams = [chunks_of(StreamKey(actor, incarnation, number)) for number in range(ENVIRONMENTS)]
        self.rng = random.Random(incarnation)
        self.ledger = ledger

    def insert(self, seconds: float) -> None:
        """Inserts for so long."""
        end = time.monotonic() + seconds
        with open(self.ledger, "ab", buffering=0) as ledger:
            while time.monotonic() < end:
                sent = [next(self.rng.choice(self.streams)) for _ in range(self.rng.randint(1, 40))]
                for chunk in sent:
                    self.sink.insert(chunk)
                self.sink.flush()
                ledger.write("".join(" ".join(map(str, chunk.key)) + "\n" for chunk in sent).encode())
                os.fsync(ledger.fileno())


class Sampler:
    """Draws batches in a thread of its own, and looks at every window."""

    def __init__(self, shard: Any, *, direct: bool, on_device: bool) -> None:
        self.batches = RayBatches(
            [shard],
            assembly=_rows_that_stay()
            if on_device
            else HostAssembly(lambda: Rows.empty((WINDOWS, LENGTH), ACTION_SIZE)),
            action_size=ACTION_SIZE,
            seed=0,
            direct=direct,
            patience_seconds=PATIENCE,
        )
        self.feed = Feed(self.batches, torch.device("cpu"))
        self.windows = 0
        self.failure: BaseException | None = None
        self.stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends the thread; raises what went wrong in it."""
        self.stopped = True
        self.thread.join()
        self.batches.close()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self.stopped:
                try:
                    batch = next(self.feed)
                except NoWindowsError:  # nothing has been inserted yet
                    continue
                for number in range(WINDOWS):
                    assert_window(Rows(*(part[number].numpy() for part in batch)))
                self.windows += WINDOWS
        except BaseException as error:
            self.failure = error


def _rows_that_stay() -> DeviceAssembly:
    device_rows = DeviceRows(ROWS_THAT_STAY, ACTION_SIZE, torch.device("cpu"))
    return DeviceAssembly(device_rows, ROWS_THAT_STAY, 1, (WINDOWS, LENGTH), ACTION_SIZE)


def run(store: str, kills: int, seed: int, folder: Path, capacity: int = 10**9) -> dict[str, Any]:
    """Inserts, samples and kills, then holds what is there against what was acknowledged.

    Args:
        store: lmdb or redis.
        kills: how many.
        seed: of who is killed, and when.
        folder: an empty one.
        capacity: of the replay in environment steps; what is evicted must be the oldest, and is counted all the same.
    """
    with ExitStack() as undo:
        server = undo.enter_context(RedisServer(folder / "redis")) if store == "redis" else None
        setting = _setting(store, folder, server.url if server else "", capacity)
        connect("", INSERTERS + 2)
        undo.callback(ray.shutdown)
        began = time.monotonic()
        killed, windows = _run(setting, server, kills, random.Random(seed), folder / "acknowledged")
        seconds = time.monotonic() - began
        ray.shutdown()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
            contents = another.submit(_contents, setting).result()
        acknowledged = [
            ChunkKey(*map(int, line.split())) for line in (folder / "acknowledged").read_text().splitlines()
        ]
        env_steps = assert_accounts(contents, acknowledged, capacity)
        return {
            "store": store,
            "seed": seed,
            "kills": killed,
            "seconds": round(seconds, 1),
            "lives": len({stream.incarnation for stream in contents.marks}),
            "acknowledged_chunks": len(acknowledged),
            "held_chunks": len(contents.chunks),
            "env_steps": env_steps,
            "inserted_env_steps": contents.inserted_env_steps,
            "windows": windows,
        }


def _setting(store: str, folder: Path, url: str, capacity: int) -> Setting:
    config = Config(
        replay_store=store,
        redis_url=url,
        redis_prefix="kills",
        actors=1,
        envs_per_actor=1,
        environment=EnvironmentConfig(action_repeat=REPEAT),
        replay=ReplayConfig(capacity=capacity),
        training=TrainingConfig(batch_size=WINDOWS, batch_length=LENGTH),
        redis_timeout=PATIENCE,
    )
    return Setting(config, ACTION_SIZE, "auto", folder / "replay", "cpu")


def _run(
    setting: Setting, server: RedisServer | None, kills: int, rng: random.Random, ledger: Path
) -> tuple[dict[str, int], dict[str, int]]:
    """How often each was killed, and how many windows each sampler looked at."""
    shard = start_shard(setting, 0)
    inserters = _Inserters(shard, setting.config.packs_images, ledger)
    samplers = {
        "service": Sampler(shard, direct=False, on_device=False),
        "on_device": Sampler(shard, direct=False, on_device=True),
    }
    if setting.config.replay_store == "lmdb":
        samplers["file"] = Sampler(shard, direct=True, on_device=False)
    killed: collections.Counter[str] = collections.Counter()
    while sum(killed.values()) < kills:
        if rng.random() < WAITED_FOR:
            _until_all_work(inserters, list(samplers.values()))
        time.sleep(rng.uniform(*QUIET_SECONDS))
        victim = rng.choice(VICTIMS[setting.config.replay_store])
        if victim == "server":
            assert server is not None
            server.kill()
            time.sleep(rng.uniform(*AWAY_SECONDS))
            server.start()
        elif not _kill(f"ray::{'Replay' if victim == 'shard' else 'Inserter'}", rng):
            continue  # it is not back yet
        killed[victim] += 1
    _until_all_work(inserters, list(samplers.values()))
    inserters.stop()
    for sampler in samplers.values():
        sampler.stop()
    ray.get(shard.call.remote("report"))
    return dict(killed), {name: sampler.windows for name, sampler in samplers.items()}


def _until_all_work(inserters: _Inserters, samplers: list[Sampler]) -> None:
    """Returns when more was acknowledged, and more drawn by each sampler."""

    def done() -> list[int]:
        inserters.look_after()
        for sampler in samplers:
            if sampler.failure is not None:
                raise sampler.failure
        return [inserters.acknowledged_bytes, *(sampler.windows for sampler in samplers)]

    before, deadline = done(), time.monotonic() + PATIENCE
    while not all(now > then for now, then in zip(done(), before, strict=True)):
        assert time.monotonic() < deadline, f"no progress within {PATIENCE} s: {before}, {done()}"
        time.sleep(0.02)


class _Inserters:
    """Keeps so many inserting actors alive, each life with a number of its own."""

    def __init__(self, shard: Any, pack: bool, ledger: Path) -> None:
        self.shard, self.pack, self.ledger = shard, pack, ledger
        self.incarnations = itertools.count()
        self.calls = dict(self._start(actor) for actor in range(INSERTERS))

    def look_after(self) -> None:
        """Begins a new life for those that were killed; raises what went wrong in others."""
        for call in ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)[0]:
            _, actor = self.calls.pop(call)
            try:
                ray.get(call)
                raise AssertionError("an inserter ended by itself")
            except ray.exceptions.RayActorError:
                new_call, life = self._start(actor)
                self.calls[new_call] = life

    @property
    def acknowledged_bytes(self) -> int:
        """Size of the ledger."""
        return self.ledger.stat().st_size if self.ledger.exists() else 0

    def stop(self) -> None:
        """Ends them with kill -9 too."""
        self.look_after()
        for handle, _ in self.calls.values():
            ray.kill(handle)

    def _start(self, actor: int) -> tuple[Any, tuple[Any, int]]:
        life = Inserter.remote(self.shard, actor, next(self.incarnations), self.pack, str(self.ledger))  # type: ignore[attr-defined]  # Ray's
        return life.insert.remote(1e9), (life, actor)


def _kill(title: str, rng: random.Random) -> bool:
    """Whether there was a process with such a title, which is gone now."""
    candidates = [process for process in psutil.Process().children(recursive=True) if _title(process).startswith(title)]
    if not candidates:
        return False
    rng.choice(candidates).kill()
    return True


def _title(process: psutil.Process) -> str:
    try:
        return next(iter(process.cmdline()), "")
    except psutil.NoSuchProcess:
        return ""


def _contents(setting: Setting) -> Contents:
    """What is in the store; to be asked in a process that has never read it."""
    store = open_store(setting.config, setting.replay_folder, 0, ACTION_SIZE)
    try:
        chunks = []
        for number, _ in store.scan():
            with store.read([number]) as (data,):
                chunks.append(decode(bytes(data)))
        return Contents(chunks, store.marks(), store.inserted_env_steps)
    finally:
        store.close()


def main() -> None:
    """Runs once, and prints the accounts as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", choices=sorted(VICTIMS), default="lmdb")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--capacity", type=int, default=10**9)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        print(json.dumps(run(arguments.store, arguments.kills, arguments.seed, folder, arguments.capacity)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
