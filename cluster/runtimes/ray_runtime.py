"""Every role a Ray actor: a local Ray on one box, or a cluster that is joined. Same calls as `inline`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from cluster.runtimes.roles import (
    Setting,
    build_collector,
    build_evaluator,
    build_learner,
    build_replay,
    learner_threads,
)
from cluster.runtimes.runtime import Call, Role, RoleDiedError
from common.errors import UserError
from common.seeding import derive_seed
from common.sequence import Chunk, Rows, StreamKey
from replay_service.codec import encode
from replay_service.replay import split_batch

PREFETCH = 2
SLICE_SECONDS = 1.0
OBJECT_STORE_BYTES = 512 * 2**20


class RoleActor:
    """A process that holds one role. Ray serialises calls, so a role needs no locks."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self.refused: UserError | None = None
        try:
            self.role = build()
        except UserError as error:  # an actor that cannot be built would die, and be built again and again
            self.refused = error

    def call(self, method: str, *args: object) -> object:
        """Calls the role.

        Raises:
            UserError: it could not be built.
        """
        if self.refused is not None:
            raise self.refused
        return getattr(self.role, method)(*args)


# A class a kind, so that process lists show what each process is.
ACTOR_CLASSES: dict[str, Any] = {
    kind: ray.remote(type(kind.capitalize(), (RoleActor,), {}))
    for kind in ("replay", "collector", "learner", "evaluator")
}


class RaySink:
    """Streams chunks to one replay shard without waiting; acknowledgements are collected by `flush`.

    Of each stream one chunk is under way at a time: a shard that restarts gets its calls again, in an order that Ray
    does not promise, and a stream's chunks must arrive in theirs.
    """

    def __init__(self, shard: ActorHandle) -> None:
        self.shard = shard
        self.underway: dict[StreamKey, ray.ObjectRef] = {}
        self.stored = 0

    def insert(self, chunk: Chunk) -> None:
        """Sends the chunk. Ray sends it again if the shard restarts: its key makes that safe."""
        stream = chunk.key.stream
        if stream in self.underway:
            self.stored += ray.get(self.underway[stream])
        self.underway[stream] = self.shard.call.remote("insert", encode(chunk))

    def flush(self) -> int:
        """Waits for every acknowledgement; returns the environment steps newly stored since the last flush."""
        stored = self.stored + sum(ray.get(list(self.underway.values())))
        self.underway.clear()
        self.stored = 0
        return stored


class RayBatches(Iterator[Rows]):
    """Batches drawn from all shards in proportion to their windows, `PREFETCH` of them under way at any time."""

    def __init__(self, shards: list[ActorHandle], batch_size: int, seed: int) -> None:
        self.shards = shards
        self.batch_size = batch_size
        self.rng = np.random.default_rng(seed)
        self.windows = [0] * len(shards)
        self.underway: list[list[tuple[int, ray.ObjectRef]]] = []

    def __next__(self) -> Rows:
        if not sum(self.windows):
            self.windows = ray.get([shard.call.remote("windows") for shard in self.shards])
        while len(self.underway) < PREFETCH:
            self.underway.append(self._request())
        parts = []
        for shard, reference in self.underway.pop(0):
            sample: Sample = ray.get(reference)
            self.windows[shard] = sample.windows
            parts.append(sample.rows)
        return parts[0] if len(parts) == 1 else Rows.concatenate(parts)

    def _request(self) -> list[tuple[int, ray.ObjectRef]]:
        counts = split_batch(self.batch_size, self.windows, self.rng)
        return [
            (shard, self.shards[shard].call.remote("draw", count)) for shard, count in enumerate(counts) if count > 0
        ]


class RayRuntime:
    """Starts or joins Ray, and keeps one actor a role."""

    slice_seconds: float | None = SLICE_SECONDS

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.actors: dict[Role, Any] = {}
        self.calls: dict[ray.ObjectRef, tuple[Role, str]] = {}
        connect(setting.config.ray_address, roles=setting.config.actors + setting.config.replay.shards + 2)

    def start(self, role: Role, incarnation: int) -> None:
        """Creates the role's actor; returns before its process is up."""
        setting = self.setting
        options: dict[str, Any] = {"num_cpus": 1}
        build: Callable[[], Any]
        match role.kind:
            case "replay":
                build = partial(ReplayShard, setting, role.number)
                options |= {"max_restarts": -1, "max_task_retries": -1}
            case "collector":
                build = partial(_collector, setting, role.number, incarnation, self._shards()[self._shard_of(role)])
                options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}}
            case "evaluator":
                build = partial(_evaluator, setting)
                options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}}
            case "learner":
                build = partial(_learner, setting, self._shards())
                options["num_gpus"] = 1 if setting.device.startswith("cuda") else 0
        self.actors[role] = ACTOR_CLASSES[role.kind].options(**options).remote(build)

    def call(self, role: Role, method: str, *args: object) -> None:
        """Sends the call to the role's actor."""
        self.calls[self.actors[role].call.remote(method, *args)] = (role, method)

    def wait(self, timeout: float) -> Call | None:
        """The next call that ends."""
        if not self.calls:
            return None
        ready, _ = ray.wait(list(self.calls), num_returns=1, timeout=timeout)
        if not ready:
            return None
        role, method = self.calls.pop(ready[0])
        try:
            return Call(role, method, ray.get(ready[0]))
        except (RayActorError, WorkerCrashedError) as error:
            return Call(role, method, None, RoleDiedError(" ".join(str(error).split())[:300]))
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise error.as_instanceof_cause() from None

    def share(self, value: object) -> object:
        """Puts the value into the object store, owned by this process, so that no actor's death takes it away."""
        return ray.put(value)

    def kill(self, role: Role) -> None:
        """Ends the actor's process."""
        ray.kill(self.actors[role])

    def shutdown(self) -> None:
        """Leaves Ray; a local one ends with its actors."""
        ray.shutdown()

    def _shards(self) -> list[ActorHandle]:
        return [self.actors[Role("replay", index)] for index in range(self.setting.config.replay.shards)]

    def _shard_of(self, role: Role) -> int:
        return role.number % self.setting.config.replay.shards


def connect(address: str, roles: int) -> None:
    """Joins the cluster at `address`, or starts a local Ray with a slot for each role."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default is 15: whatever else runs comes first
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray-address {address}: no Ray cluster answers there ({error})") from None
        return
    ray.init(
        num_cpus=max(os.cpu_count() or 1, roles),  # slots, not cores: every role gets a process
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


class Sample(NamedTuple):
    """A shard's part of a batch, and how many windows it holds now."""

    rows: Rows
    windows: int


class ReplayShard:
    """A replay shard whose answers say how many windows it holds, so that the next batch is split rightly."""

    def __init__(self, setting: Setting, shard: int) -> None:
        self.replay = build_replay(setting, shard)
        self.insert = self.replay.insert
        self.report = self.replay.report
        self.random_state = self.replay.random_state
        self.set_random_state = self.replay.set_random_state
        self.memory: dict[int, Rows] = {}

    def windows(self) -> int:
        """Windows that can be drawn now."""
        return self.replay.windows

    def draw(self, count: int) -> Sample:
        """A part of a batch. Its memory is reused by the next one: Ray has copied it out by then."""
        rows = self.replay.sample(count, self.memory.get(count))
        self.memory = {count: rows}
        return Sample(rows, self.replay.windows)


def _collector(setting: Setting, actor: int, incarnation: int, shard: ActorHandle) -> object:
    torch.set_num_threads(1)
    return build_collector(setting, actor, incarnation, RaySink(shard))


def _evaluator(setting: Setting) -> object:
    torch.set_num_threads(1)
    return build_evaluator(setting)


def _learner(setting: Setting, shards: list[ActorHandle]) -> object:
    torch.set_num_threads(learner_threads(setting.config))
    seed = derive_seed(setting.config.seed, "shards")
    return build_learner(setting, RayBatches(shards, setting.config.training.batch_size, seed))
