"""What every simulated run is held to."""

from __future__ import annotations

from typing import Any

from cluster.coordinator import Coordinator
from common.config import Config
from tests.cluster.simulated import Run, SimulatedRuntime


class Band:
    """Holds U − g within the tolerance at the end of every call, counted from what the roles themselves did."""

    def __init__(self, config: Config) -> None:
        self.config = config
        held = config.replay.chunk_rows * config.environment.action_repeat * config.environments
        self.tolerance = config.train_ratio * max(1000, 2 * held)
        self.checks = 0

    def __call__(self, coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        called_for = self.config.train_ratio * max(0, runtime.disk.env_steps - self.config.replay.prefill)
        error = runtime.done - called_for
        assert -self.tolerance - 1e-6 <= error < self.config.replay.pretrain + self.tolerance + 1
        self.checks += 1


def stride(config: Config) -> int:
    return config.envs_per_actor * config.environment.action_repeat


def assert_complete(run: Run, config: Config) -> None:
    """The run ended at its environment steps, with the updates that they call for, and at no more."""
    assert run.summary["finished"]
    assert config.env_steps - stride(config) < run.summary["env_steps"] <= config.env_steps
    called_for = config.replay.pretrain + config.train_ratio * (run.summary["env_steps"] - config.replay.prefill)
    tolerance = config.train_ratio * max(
        1000, 2 * config.replay.chunk_rows * config.environment.action_repeat * config.environments
    )
    newest = run.folder.metrics()[-1]
    assert (newest["env_steps"], newest["updates"]) == (run.summary["env_steps"], run.summary["updates"])
    assert newest["replay_env_steps"] == run.runtime.disk.env_steps
    # What collectors still held when the last update was granted comes on top.
    held = config.train_ratio * config.replay.chunk_rows * config.environment.action_repeat * config.environments
    forgiven = run.summary["replay_debt_dropped_updates"]
    assert called_for - forgiven - held - 1 <= run.summary["updates"] < called_for + tolerance + 1


def stop_after(env_steps: int) -> Any:
    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        coordinator.stop_requested = coordinator.stop_requested or coordinator.limiter.env_steps >= env_steps

    return watch
