"""Collectors against the bare dm_control loop: what the policy, the chunks and the bookkeeping cost."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import ray
import torch

from actors.rendering import configure
from actors.tasks import split_task
from cluster.benchmarks.measure import interleaved, machine, rate
from cluster.runtimes.ray_runtime import connect
from cluster.runtimes.roles import Setting, actor_environment, build_collector, build_policy
from common.config import Config
from common.sequence import IMAGE_SHAPE, Chunk
from learner.learner import Learner
from replay_service.codec import encode

SECONDS = 4.0
POLICY_CALLS = 100
UNBOUNDED_STEPS = 10**9


class EncodingSink:
    """Encodes chunks as they would be sent, and counts them."""

    def __init__(self, action_repeat: int) -> None:
        self.action_repeat = action_repeat
        self.stored = 0

    def insert(self, chunk: Chunk) -> None:
        """Encodes a chunk."""
        encode(chunk)
        self.stored += chunk.rows.env_steps(self.action_repeat)

    def flush(self) -> int:
        """Environment steps since the last flush."""
        stored, self.stored = self.stored, 0
        return stored


class BareLoop:
    """dm_control as anybody would loop over it: step, repeat, `physics.render`; no policy."""

    def __init__(self, config: Config) -> None:
        from dm_control import suite

        domain, task = split_task(config.task, suite.ALL_TASKS)
        self.repeat = config.environment.action_repeat
        self.environments = [suite.load(domain, task) for _ in range(config.envs_per_actor)]
        self.camera = 2 if domain == "quadruped" else 0
        self.options: dict[str, Any] = {}
        for environment in self.environments:
            visual = environment.physics.model.vis
            if config.environment.rendering == "fast":  # the same picture as ours, or it would be no comparison
                visual.quality.offsamples = visual.quality.shadowsize = 0
                self.options = {"render_flag_overrides": {"shadow": False, "reflection": False}}
            environment.reset()
        spec = self.environments[0].action_spec()
        self.low, self.high = spec.minimum, spec.maximum
        self.random = np.random.default_rng(0)

    def run(self, seconds: float) -> float:
        """Environment steps a second."""
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for environment in self.environments:
                action = self.random.uniform(self.low, self.high)
                for _ in range(self.repeat):
                    if environment.step(action).last():
                        environment.reset()
                height, width, _ = IMAGE_SHAPE
                environment.physics.render(height, width, camera_id=self.camera, **self.options)
                steps += self.repeat
        return steps / (time.perf_counter() - began)


class Bench:
    """A process with both loops, so that they take turns on the same core."""

    def __init__(self, setting: Setting, actor: int) -> None:
        torch.set_num_threads(setting.config.acting.threads)
        configure(setting.gl)
        config = setting.config
        self.bare_loop = BareLoop(config)
        sink = EncodingSink(config.environment.action_repeat)
        self.collector = build_collector(setting, actor, 0, sink)
        weights = Learner(config, setting.action_size, iter(())).weights()
        self.collector.set_weights(1, weights)
        self.policy_alone = build_policy(setting, "benchmark")
        self.policy_alone.load_weights(weights)
        self.images = np.random.default_rng(0).integers(0, 256, (config.envs_per_actor, *IMAGE_SHAPE), np.uint8)
        self.steps_per_action = config.envs_per_actor * config.environment.action_repeat

    def bare(self) -> float:
        """Environment steps a second of the bare loop."""
        return self.bare_loop.run(SECONDS)

    def ours(self) -> float:
        """Environment steps a second of the collector, acting with the policy."""
        began = time.perf_counter()
        report = self.collector.collect(UNBOUNDED_STEPS, SECONDS)
        return report.stepped / (time.perf_counter() - began)

    def policy(self) -> float:
        """Environment steps a second that the policy alone could choose actions for, while training."""
        state = None

        def act() -> None:
            nonlocal state
            _, state = self.policy_alone.act(self.images, state, training=True)

        return self.steps_per_action * rate(act, POLICY_CALLS)

    def resident_bytes(self) -> int:
        """Memory of this process."""
        return self.collector.collect(0).usage.resident_bytes


def measure(setting: Setting, processes: int, rounds: int) -> dict[str, Any]:
    """Environment steps a second of collectors and of the bare loop, each in `processes` processes at once.

    `policy_share` is the part of the collectors' time in which the policy chooses actions.
    """
    connect("", processes)
    environment = {"env_vars": actor_environment(setting.config)}
    benches = [
        ray.remote(Bench).options(num_cpus=1, runtime_env=environment).remote(setting, index)
        for index in range(processes)
    ]

    def together(method: str) -> list[Any]:
        return ray.get([getattr(bench, method).remote() for bench in benches])

    loops = {name: partial(lambda method: sum(together(method)), name) for name in ("bare", "ours", "policy")}
    medians = interleaved(loops, rounds)
    memory = together("resident_bytes")
    ray.shutdown()
    return {
        "env_steps_per_second": medians["ours"],
        "raw_env_steps_per_second": medians["bare"],
        "ratio": medians["ours"] / medians["bare"],
        "policy_microseconds_per_env_step": 1e6 * processes / medians["policy"],
        "policy_share": medians["ours"] / medians["policy"],
        "processes": processes,
        "envs_per_actor": setting.config.envs_per_actor,
        "task": setting.config.task,
        "preset": setting.config.preset,
        "rendering": setting.config.environment.rendering,
        "gl": setting.gl,
        "resident_bytes": {f"collector_{index}": held for index, held in enumerate(memory)},
        "machine": machine(),
    }
