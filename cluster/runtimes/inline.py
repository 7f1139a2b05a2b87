"""All roles in one process, one call after another: deterministic for a seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from actors.collector import Collector
from actors.evaluator import Evaluator
from cluster.runtimes.roles import (
    Setting,
    build_collector,
    build_evaluator,
    build_learner,
    build_replay,
    learner_threads,
)
from cluster.runtimes.runtime import Call, Role
from common.seeding import derive_seed
from common.sequence import Chunk, Rows
from learner.learner import Learner
from replay_service.codec import encode
from replay_service.replay import Replay, split_batch


class InlineSink:
    """Inserts chunks straight into the replay shard of this process."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.stored = 0

    def insert(self, chunk: Chunk) -> None:
        """Stores a chunk; it went through the codec, as it does everywhere."""
        self.stored += self.replay.insert(encode(chunk))

    def flush(self) -> int:
        """Environment steps newly stored since the last flush."""
        stored, self.stored = self.stored, 0
        return stored


class InlineRuntime:
    """Calls run in the order they were made, when they are waited for."""

    slice_seconds: float | None = None

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.roles: dict[Role, Collector | Evaluator | Learner | Replay] = {}
        self.calls: deque[tuple[Role, str, tuple[object, ...]]] = deque()
        torch.set_num_threads(learner_threads(setting.config))

    def start(self, role: Role, incarnation: int) -> None:
        """Builds the role here."""
        match role.kind:
            case "replay":
                self.roles[role] = build_replay(self.setting, role.number)
            case "collector":
                sink = InlineSink(self._shard(role.number))
                self.roles[role] = build_collector(self.setting, role.number, incarnation, sink)
            case "evaluator":
                self.roles[role] = build_evaluator(self.setting)
            case "learner":
                self.roles[role] = build_learner(self.setting, self._batches())

    def call(self, role: Role, method: str, *args: object) -> None:
        """Queues the call."""
        self.calls.append((role, method, args))

    def wait(self, timeout: float) -> Call | None:
        """Runs the oldest queued call."""
        if not self.calls:
            return None
        role, method, args = self.calls.popleft()
        return Call(role, method, getattr(self.roles[role], method)(*args))

    def share(self, value: object) -> object:
        """Nothing to do within one process."""
        return value

    def kill(self, role: Role) -> None:
        """Drops the role's queued calls; there is no process to end."""
        self.calls = deque(call for call in self.calls if call[0] != role)

    def shutdown(self) -> None:
        """Closes environments first, the stores they write to last."""
        self.calls.clear()
        for kind in ("collector", "evaluator", "replay"):
            for role, instance in self.roles.items():
                if role.kind == kind:
                    instance.close()  # type: ignore[union-attr]  # the learner, which has no close, is of no such kind

    def _shard(self, index: int) -> Replay:
        replay = self.roles[Role("replay", index % self.setting.config.replay.shards)]
        assert isinstance(replay, Replay)
        return replay

    def _batches(self) -> Iterator[Rows]:
        config = self.setting.config
        shards = [self._shard(index) for index in range(config.replay.shards)]
        random = np.random.default_rng(derive_seed(config.seed, "shards"))
        while True:
            counts = split_batch(config.training.batch_size, [shard.windows for shard in shards], random)
            parts = [shard.sample(count) for shard, count in zip(shards, counts, strict=True) if count]
            yield parts[0] if len(parts) == 1 else Rows.concatenate(parts)
