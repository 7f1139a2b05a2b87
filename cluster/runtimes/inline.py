"""All roles in one process, one call after another: deterministic for a seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from actors.collector import Collector
from actors.evaluator import Evaluator
from cluster.optional import optional_work
from cluster.runtimes.inline_batches import InlineBatches
from cluster.runtimes.on_device import make_assembly
from cluster.runtimes.patience import patiently
from cluster.runtimes.roles import (
    Setting,
    build_collector,
    build_evaluator,
    build_learner,
    build_replay,
    learner_threads,
)
from cluster.runtimes.runtime import Call, Role, RoleDiedError
from common.seeding import derive_seed
from common.sequence import Chunk
from learner.learner import Learner
from replay_service.codec import encode
from replay_service.replay import Replay
from replay_service.stores.trouble import StoreGaveUpError


class InlineSink:
    """Inserts chunks straight into the replay shard of this process."""

    def __init__(self, replay: Replay, pack: bool, patience_seconds: float) -> None:
        self.replay = replay
        self.pack = pack
        self.patience_seconds = patience_seconds
        self.stored = 0

    def insert(self, chunk: Chunk) -> None:
        """Stores a chunk; it went through the codec, as it does everywhere."""
        data = encode(chunk, pack=self.pack)
        self.stored += patiently(lambda: self.replay.insert(data), self.patience_seconds)

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
        self.dropped: deque[Call] = deque()
        self.gave_up: StoreGaveUpError | None = None
        torch.set_num_threads(learner_threads(setting.config))

    def start(self, role: Role, incarnation: int) -> None:
        """Builds the role here."""
        match role.kind:
            case "replay":
                self.roles[role] = build_replay(self.setting, role.number)
            case "collector":
                config = self.setting.config
                sink = InlineSink(self._shard(role.number), config.packs_images, config.redis_timeout)
                self.roles[role] = build_collector(self.setting, role.number, incarnation, sink)
            case "evaluator":
                self.roles[role] = build_evaluator(self.setting)
            case "learner":
                self.roles[role] = build_learner(self.setting, self._batches())

    def is_up(self, role: Role) -> bool:
        """See `Runtime.is_up`."""
        return role in self.roles

    def call(self, role: Role, method: str, *args: object) -> None:
        """Queues the call."""
        self.calls.append((role, method, args))

    def wait(self, timeout: float) -> Call | None:
        """Runs the oldest queued call. Once the store was given up, nothing that needs it waits for it again."""
        if self.dropped:
            return self.dropped.popleft()
        if not self.calls:
            return None
        role, method, args = self.calls.popleft()
        if self.gave_up is not None and method in ("collect", "finish", "update"):
            return Call(role, method, None, failed=self.gave_up)
        if role.kind == "evaluator":
            return self._evaluated(role, method, args)
        try:
            return Call(role, method, getattr(self.roles[role], method)(*args))
        except StoreGaveUpError as error:
            self.gave_up = error
            return Call(role, method, None, failed=error)

    def _evaluated(self, role: Role, method: str, args: tuple[object, ...]) -> Call:
        """A call of the evaluator, which may take minutes; it is as good as dead when the run is asked to stop."""
        report: list[object] = []
        optional_work(lambda: report.append(getattr(self.roles[role], method)(*args)))
        if not report:
            return Call(role, method, None, died=RoleDiedError("given up"))
        return Call(role, method, report[0])

    def insert(self, shard: int, chunks: Sequence[Chunk]) -> None:
        """See `Runtime.insert`."""
        config = self.setting.config
        data = [encode(chunk, pack=config.packs_images) for chunk in chunks]
        patiently(lambda: self._shard(shard).insert(*data), config.redis_timeout)

    def share(self, value: object) -> object:
        """Nothing to do within one process."""
        return value

    def kill(self, role: Role) -> None:
        """Ends the role's queued calls; there is no process to end."""
        self.dropped += [Call(*call[:2], None, died=RoleDiedError("killed")) for call in self.calls if call[0] == role]
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

    def _batches(self) -> InlineBatches:
        config = self.setting.config
        return InlineBatches(
            [self._shard(index) for index in range(config.replay.shards)],
            make_assembly(self.setting),
            derive_seed(config.seed, "shards"),
            config.redis_timeout,
        )
