"""Many collectors in few processes: a fleet that is too large for this machine, but for its environments.

Everything between the environments and the learner is as it is in a run: each collector is a role of its own for the
coordinator, with its own calls, keys and chunks, and pulls weights by version. Its environments play ready-made frames,
and its policy is a copy of the weights and a wait, as long as drawing would have taken: on a real cluster that is other
machines' work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle

from actors.acting import UniformPolicy
from actors.collector import Collector
from cluster.runtimes.ray_runtime import RayRuntime
from cluster.runtimes.ray_sink import RaySink
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import Call, Role
from common.errors import UserError
from common.seeding import derive_seed

SEATS = 32
PROCESSES = 8


class SimulatedPolicy(UniformPolicy):
    """Takes weights as a policy does, and acts at random, as fast as environments that are drawn would let it.

    Attributes:
        version: of the weights that it holds; 0 before there are any.
        acted: when it last acted with each version, on this host's monotonic clock.
    """

    def __init__(self, action_size: int, seed: int, seconds: float) -> None:
        super().__init__(action_size, seed)
        self.version = 0
        self.acted: dict[int, float] = {}
        self._seconds = seconds
        self._due = 0.0
        self._weights: dict[str, NDArray[np.float32]] = {}

    def act(
        self,
        image: NDArray[np.uint8],
        state: Any = None,
        *,
        is_first: NDArray[np.bool_] | None = None,
        training: bool = False,
    ) -> tuple[NDArray[np.float32], None]:
        """Waits until the step before would have been drawn; one that is late does not catch up."""
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        self._due = max(self._due, now) + self._seconds
        self.acted[self.version] = time.monotonic()
        return super().act(image, state, is_first=is_first, training=training)

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Copies the weights out of the object store."""
        self._weights = {name: np.array(value) for name, value in weights.items()}

    def reseed(self, seed: int) -> None:
        """Nothing depends on what is drawn here."""


class Queue(NamedTuple):
    """What collectors have sent that is not acknowledged."""

    calls: int
    waiting_bytes: int


class _Seat(NamedTuple):
    collector: Collector
    policy: SimulatedPolicy
    sink: RaySink


class Crowd:
    """The collectors of one process, each with a thread of its own.

    Args:
        setting: the run's.
        shards: the replay's.
        speed: environment steps a second of one collector; 0: as many as it can.
    """

    def __init__(self, setting: Setting, shards: list[ActorHandle], speed: float) -> None:
        config = setting.config
        self.setting = setting
        self.shards = shards
        stride = config.envs_per_actor * config.environment.action_repeat
        self.seconds = stride / speed if speed else 0.0
        self.seats: dict[int, _Seat] = {}

    def sit(self, number: int, incarnation: int) -> None:
        """Builds a collector."""
        setting, config = self.setting, self.setting.config
        seed = derive_seed(config.seed, "collector", number, incarnation)
        policy = SimulatedPolicy(setting.action_size, seed, self.seconds)
        sink = RaySink(self.shards[number % len(self.shards)], config.packs_images, config.redis_timeout)
        self.seats[number] = _Seat(Collector(config, number, incarnation, sink, policy), policy, sink)

    def call(self, number: int, method: str, *args: object) -> object:
        """Calls a collector."""
        seat = self.seats[number]
        result = getattr(seat.collector, method)(*args)
        if method == "set_weights":
            seat.policy.version = cast("int", args[0])
        return result

    def queue(self) -> Queue:
        """What the process's collectors wait for."""
        sinks = [seat.sink for seat in list(self.seats.values())]
        return Queue(sum(len(sink.underway) for sink in sinks), sum(sink.waiting_bytes for sink in sinks))

    def acted(self) -> dict[int, dict[int, float]]:
        """When each collector last acted with each version of the weights."""
        return {number: dict(seat.policy.acted) for number, seat in self.seats.items()}


class CrowdRuntime(RayRuntime):
    """Ray's runtime, but for collectors, which share processes.

    Attributes:
        sent: calls that the coordinator has made.
    """

    def __init__(self, setting: Setting, processes: int, speed: float) -> None:
        self.processes = processes
        self.speed = speed
        self.crowds: list[ActorHandle] = []
        self.sent = 0
        super().__init__(setting)

    def start(self, role: Role, incarnation: int) -> None:
        """See `Runtime.start`."""
        if role.kind != "collector":
            super().start(role, incarnation)
            return
        if not self.crowds:
            self.crowds = [self._crowd() for _ in range(self.processes)]
        crowd = self.crowds[role.number % self.processes]
        self.actors[role] = crowd
        self.coming[role] = crowd.sit.options(concurrency_group=self._seat(role)).remote(role.number, incarnation)

    def wait(self, timeout: float) -> Call | None:
        """See `Runtime.wait`.

        Raises:
            UserError: a process with collectors has died, and what is measured without them means nothing.
        """
        call = super().wait(timeout)
        if call is not None and call.died is not None and call.role.kind == "collector":
            raise UserError(f"a process with simulated actors died, fewer or slower ones may live: {call.died}")
        return call

    def kill(self, role: Role) -> None:
        """Ends a role's process; a collector that is late is waited for, because others live in its process."""
        if role.kind != "collector":
            super().kill(role)

    def queue(self) -> Queue:
        """What all collectors have sent that is not acknowledged."""
        queues: list[Queue] = ray.get([crowd.queue.remote() for crowd in self.crowds])
        return Queue(*(sum(part) for part in zip(*queues, strict=True))) if queues else Queue(0, 0)

    def acted(self) -> dict[int, dict[int, float]]:
        """When each collector last acted with each version of the weights, on this host's monotonic clock."""
        found: dict[int, dict[int, float]] = {}
        answers: list[dict[int, dict[int, float]]] = ray.get([crowd.acted.remote() for crowd in self.crowds])
        for acted in answers:
            found.update(acted)
        return found

    def _slots(self) -> int:
        return self.processes + self.setting.config.replay.shards + self.setting.config.learners + 1

    def _send(self, role: Role, method: str, *args: object) -> ray.ObjectRef:
        self.sent += 1
        if role.kind != "collector":
            return super()._send(role, method, *args)
        call = self.actors[role].call.options(concurrency_group=self._seat(role))
        answer: ray.ObjectRef = call.remote(role.number, method, *args)
        return answer

    def _seat(self, role: Role) -> str:
        """The thread of its process in which a collector's calls run, one after another."""
        return f"seat_{role.number // self.processes}"

    def _crowd(self) -> ActorHandle:
        seats = -(-self.setting.config.actors // self.processes)
        remote: Any = ray.remote  # whose types do not know of concurrency groups
        kind = remote(concurrency_groups={f"seat_{seat}": 1 for seat in range(seats)})(Crowd)
        environment = {"env_vars": {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}}
        crowd: ActorHandle = kind.options(num_cpus=1, enable_task_events=False, runtime_env=environment).remote(
            self.setting, self._shards(), self.speed
        )
        return crowd
