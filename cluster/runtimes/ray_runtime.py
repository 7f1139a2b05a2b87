"""Every role a Ray actor: a local Ray on one box, or a cluster that is joined. Same calls as `inline`."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import torch
from ray._private import services
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorUnavailableError,
    AuthenticationError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from cluster.runtimes.on_device import make_assembly
from cluster.runtimes.patience import patiently
from cluster.runtimes.ray_batches import RayBatches
from cluster.runtimes.ray_learners import LeadingLearner, follow
from cluster.runtimes.ray_shard import ReplayShard
from cluster.runtimes.ray_sink import RaySink
from cluster.runtimes.roles import (
    Setting,
    actor_environment,
    build_collector,
    build_evaluator,
    build_learner,
    learner_threads,
)
from cluster.runtimes.runtime import Call, Role, RoleDiedError
from common.code import Installation, installation
from common.errors import EnvironmentFailedError, UserError
from common.seeding import derive_seed
from common.sequence import Chunk
from learner.meeting import Meeting
from replay_service.codec import encode

SLICE_SECONDS = 1.0
IDLE_SECONDS = 0.02
COMING_SECONDS = 0.1
# glibc: what LMDB frees after each transaction, and a learner after each update, stays for the next one, which then has
# no page faults.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(64 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20)}
# Custom resources with which a cluster's nodes say what they are for; each role takes next to nothing of them.
LABELS = {
    "learner": "dreamfleet_learner",
    "replay": "dreamfleet_replay",
    "collector": "dreamfleet_actor",
    "evaluator": "dreamfleet_actor",
}
LABEL_SHARE = 0.001
OBJECT_STORE_BYTES = 512 * 2**20
CONNECT_SECONDS = 10.0
START_SECONDS = 300.0


class RoleActor:
    """A process that holds one role. Ray serialises calls, so a role needs no locks.

    The role is built by the first call: that the process is there, and that its environments can draw, are two things.
    """

    def __init__(self, build: Callable[[], Any], code: Installation | None) -> None:
        self.build = build
        self.code = code  # None: that of this node
        self.role: Any = None
        self.refused: UserError | None = None

    def call(self, method: str, *args: object) -> object:
        """Calls the role.

        Raises:
            UserError: it cannot be built; nor can it later, so it is not tried again.
        """
        if self.refused is None and self.role is None:
            try:
                _refuse_other_code(self.code)
                self.role = self.build()
            except UserError as error:
                self.refused = error
        if self.refused is not None:
            raise self.refused
        return getattr(self.role, method)(*args)


# A class a kind, so that process lists show what each process is.
ACTOR_CLASSES: dict[str, Any] = {
    kind: ray.remote(type(kind.capitalize(), (RoleActor,), {}))
    for kind in ("replay", "collector", "learner", "follower", "evaluator")
}


class RayRuntime:
    """Starts or joins Ray, and keeps one actor a role."""

    slice_seconds: float | None = SLICE_SECONDS

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.actors: dict[Role, Any] = {}
        self.coming: dict[Role, ray.ObjectRef] = {}
        self.looked = -math.inf
        self.calls: dict[ray.ObjectRef, tuple[Role, str]] = {}
        connect(setting.config.ray_address, roles=self._slots())

    def start(self, role: Role, incarnation: int) -> None:
        """Creates the role's actor; returns before its process is up, or even has a place."""
        setting = self.setting
        if role.kind == "replay":
            actor = start_shard(setting, role.number)
        else:
            build: Callable[[], Any]
            match role.kind:
                case "collector":
                    build = partial(_collector, setting, role.number, incarnation, self._shards()[self._shard_of(role)])
                case "evaluator":
                    build = partial(_evaluator, setting)
                case "learner":
                    build = partial(_learner, setting, self._shards())
            actor = start_actor(role.kind, build, _code(setting), **role_options(setting, role.kind))
        self.actors[role] = actor
        self.coming[role] = actor.__ray_ready__.remote()

    def is_up(self, role: Role) -> bool:
        """See `Runtime.is_up`; Ray is asked about all who are coming at once, and now and then."""
        now = time.monotonic()
        if role in self.coming and now - self.looked >= COMING_SECONDS:
            self.looked = now
            up = set(ray.wait(list(self.coming.values()), num_returns=len(self.coming), timeout=0)[0])
            self.coming = {other: ready for other, ready in self.coming.items() if ready not in up}
        return role not in self.coming

    def call(self, role: Role, method: str, *args: object) -> None:
        """Sends the call to the role's actor."""
        self.calls[self._send(role, method, *args)] = (role, method)

    def wait(self, timeout: float) -> Call | None:
        """The next call that ends; None, too, when a process is up that was waited for."""
        awaited = [*self.calls, *self.coming.values()]
        if not awaited:
            time.sleep(min(timeout, IDLE_SECONDS))  # or who asks again at once would use a core
            return None
        ready = ray.wait(awaited, num_returns=1, timeout=timeout)[0]
        if not ready:
            return None
        if ready[0] not in self.calls:  # a process is there, or has died already: a call will tell
            self.coming = {role: up for role, up in self.coming.items() if up != ready[0]}
            return None
        role, method = self.calls.pop(ready[0])
        try:
            return Call(role, method, ray.get(ready[0]))
        except (RayActorError, WorkerCrashedError, ObjectLostError) as error:
            if isinstance(error, ActorUnavailableError | ObjectLostError):
                self.kill(role)  # or one that was only out of reach would go on beside its next life
            return Call(role, method, None, RoleDiedError(" ".join(str(error).split())[:300]))
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                return Call(role, method, None, failed=error.cause)
            if isinstance(error.cause, EnvironmentFailedError):
                self.kill(role)
                return Call(role, method, None, RoleDiedError(str(error.cause)))
            raise error.as_instanceof_cause() from None

    def insert(self, shard: int, chunks: Sequence[Chunk]) -> None:
        """See `Runtime.insert`."""
        config, actor = self.setting.config, self.actors[Role("replay", shard)]
        data = [encode(chunk, pack=config.packs_images) for chunk in chunks]
        try:
            patiently(lambda: ray.get(actor.call.remote("insert", data)), config.redis_timeout)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None  # its own text has the shard's traceback in it
            raise

    def share(self, value: object) -> object:
        """Puts the value into the object store, owned by this process, so that no actor's death takes it away."""
        return ray.put(value)

    def kill(self, role: Role) -> None:
        """Ends the actor's process."""
        ray.kill(self.actors[role])

    def shutdown(self) -> None:
        """Leaves Ray; a local one ends with its actors."""
        ray.shutdown()

    def _slots(self) -> int:
        """Processes that a local Ray has to have room for."""
        config = self.setting.config
        return config.first_actors + config.replay.shards + config.learners + 1

    def _send(self, role: Role, method: str, *args: object) -> ray.ObjectRef:
        answer: ray.ObjectRef = self.actors[role].call.remote(method, *args)
        return answer

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
        _join(address)
        return
    with _patience():
        ray.init(
            address="local",  # not one that happens to run on this machine already
            num_cpus=max(os.cpu_count() or 1, roles),  # slots, not cores: every role gets a process
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


@contextmanager
def _patience() -> Iterator[None]:
    """A Ray that is being started has `START_SECONDS` for it; its own limit, half a minute, is no setting.

    Raises:
        UserError: it has not started then.
    """
    quickly = services.get_node

    def patiently_get_node(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return quickly(gcs_address, node_id)
            except RuntimeError as error:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"Ray did not start within {START_SECONDS:.0f} s: this machine has too much else to do; try "
                        "again later, or --runtime inline"
                    ) from error
                time.sleep(0.1)

    services.get_node = patiently_get_node
    try:
        yield
    finally:
        services.get_node = quickly


def _assert_answers(address: str) -> None:
    """Ray itself would ask for many minutes, and say nothing.

    Raises:
        UserError: nobody listens at an address that names a port.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"--ray-address {address}: nobody answers there ({error}): is the cluster's head up, and its port open to "
            "this machine?"
        ) from None


def _join(address: str) -> None:
    _assert_answers(address)
    try:
        with _silent():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except AuthenticationError:
        raise UserError(
            f"--ray-address {address}: there is no token here: copy ~/.ray/auth_token from a node of the cluster"
        ) from None
    except (ConnectionError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if text.startswith("Version mismatch"):
            raise UserError(f"--ray-address {address}: {text}: install the cluster's versions here") from None
        raise UserError(
            f"--ray-address {address}: no Ray cluster answers there, or it asks for another token: set "
            f"RAY_AUTH_MODE=token, and copy ~/.ray/auth_token from one of its nodes ({text})"
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's own library prints every try to reach a cluster on the standard error; what comes of it is raised."""
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _refuse_other_code(code: Installation | None) -> None:
    if code is not None and (different := installation().instead_of(code)):
        raise UserError(
            f"node {os.uname().nodename} has {different}: install the same wheel with the same requirements.lock, or "
            "check out the same commit, on every node"
        )


def start_actor(kind: str, build: Callable[[], Any], code: Installation | None = None, **options: Any) -> ActorHandle:
    """A process of this kind that will hold what `build` makes; `options` are Ray's.

    Calls are not told to Ray's control store, which would keep the newest 100,000 of them, 250 MB: hundreds of actors
    make that many in minutes.
    """
    actor: ActorHandle = ACTOR_CLASSES[kind].options(enable_task_events=False, **options).remote(build, code)
    return actor


def start_shard(setting: Setting, number: int) -> ActorHandle:
    """A replay shard in a process of its own, which comes back on its store when it dies, and gets its calls again."""
    return start_actor(
        "replay",
        partial(ReplayShard, setting, number),
        code=_code(setting),
        **role_options(setting, "replay"),
        max_restarts=-1,
        max_task_retries=-1,
    )


def _code(setting: Setting) -> Installation | None:
    """What the nodes of a cluster must have; on one machine there is nothing else, and whoever edits it may go on."""
    return installation() if setting.config.ray_address else None


def role_options(setting: Setting, kind: str) -> dict[str, Any]:
    """What a role asks of the node that it is put on, and what it sees there: the learner its GPU, all others none.

    Ray leaves every GPU of a node visible to an actor that asked for none.
    """
    options: dict[str, Any] = {"num_cpus": 1}
    if setting.config.ray_placement == "labels":
        options["resources"] = {LABELS[kind]: LABEL_SHARE}
    if kind == "learner":
        options["num_gpus"] = 1 if setting.device.startswith("cuda") else 0
        options["runtime_env"] = {"env_vars": KEEP_MEMORY}
    elif kind == "replay":
        options["runtime_env"] = {"env_vars": {**KEEP_MEMORY, "CUDA_VISIBLE_DEVICES": ""}}
    else:
        options["runtime_env"] = {"env_vars": actor_environment(setting.config)}
    return options


def _collector(setting: Setting, actor: int, incarnation: int, shard: ActorHandle) -> object:
    torch.set_num_threads(setting.config.acting.threads)
    sink = RaySink(shard, setting.config.packs_images, setting.config.redis_timeout)
    return build_collector(setting, actor, incarnation, sink)


def _evaluator(setting: Setting) -> object:
    torch.set_num_threads(setting.config.acting.threads)
    return build_evaluator(setting)


def _learner(setting: Setting, shards: list[ActorHandle]) -> object:
    torch.set_num_threads(learner_threads(setting.config))
    if setting.config.learners > 1:
        return LeadingLearner(setting, batches(setting, shards), partial(_start_rank, setting, shards))
    return build_learner(setting, batches(setting, shards))


def _start_rank(setting: Setting, shards: list[ActorHandle], rank: int, meeting: Meeting) -> ActorHandle:
    """Another learner, which follows the first through its updates."""
    build = partial(_following_learner, setting, shards, rank, meeting)
    return start_actor("follower", build, _code(setting), **role_options(setting, "learner"))


def _following_learner(setting: Setting, shards: list[ActorHandle], rank: int, meeting: Meeting) -> object:
    torch.set_num_threads(learner_threads(setting.config))
    return follow(setting, batches(setting, shards, rank), rank, meeting)


def batches(setting: Setting, shards: list[ActorHandle], rank: int = 0) -> RayBatches:
    """A learner's share of the batches, drawn by itself."""
    config = setting.config
    return RayBatches(
        shards,
        assembly=make_assembly(setting),
        action_size=setting.action_size,
        seed=derive_seed(config.seed, "shards", *([rank] if rank else [])),
        direct=config.replay.reading == "auto",
        patience_seconds=config.redis_timeout,
    )
