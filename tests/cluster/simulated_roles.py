"""Collectors that step at a given speed, and what outlives them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from common.config import Config
from common.reports import CollectReport, EpisodeReport
from common.usage import Usage

EPISODE_ROWS = 20
USAGE = Usage(resident_bytes=1, cpu_seconds=0.01, telemetry_cpu_seconds=0.0001)


@dataclass
class Disk:
    """What outlives a run: the rows that the replay store holds, and its shard's life."""

    env_steps: int = 0
    life: str = "first"


class Environment:
    """Counts one environment's rows and sends them as the chunker does."""

    def __init__(self, chunk_rows: int, first_chunk: int) -> None:
        self.chunk_rows = chunk_rows
        self.room = first_chunk
        self.held = 0
        self.rows = 0

    def step(self) -> int:
        """One row; the rows that are sent with it."""
        self.held += 1
        self.rows += 1
        if self.held < self.room and self.rows < EPISODE_ROWS:
            return 0
        return self.send()

    def send(self) -> int:
        """Everything held."""
        sent, self.held = self.held, 0
        if self.rows == EPISODE_ROWS:
            self.rows = 0
        self.room = self.chunk_rows
        return sent


class Collector:
    """Steps at a given speed and inserts each chunk as soon as it is full, also in a call that it does not survive."""

    def __init__(self, config: Config, speed: float, disk: Disk, randomness: random.Random) -> None:
        self.repeat = config.environment.action_repeat
        self.stride = config.envs_per_actor * self.repeat
        self.speed = speed
        self.disk = disk
        chunk = config.replay.chunk_rows
        self.environments = [Environment(chunk, randomness.randint(1, chunk)) for _ in range(config.envs_per_actor)]
        self.version = 0

    def strides(self, env_steps: int, seconds: float | None) -> int:
        """Steps of all environments that a call takes; a deadline is looked at between them."""
        fitting = env_steps // self.stride
        if seconds is None or fitting == 0:
            return fitting
        return min(fitting, max(1, int(seconds * self.speed / self.stride)))

    def seconds(self, env_steps: int, seconds: float | None) -> float:
        return self.strides(env_steps, seconds) * self.stride / self.speed

    def collect(self, env_steps: int, seconds: float | None) -> CollectReport:
        strides = self.strides(env_steps, seconds)
        inserted = sum(env.step() for _ in range(strides) for env in self.environments) * self.repeat
        self.disk.env_steps += inserted
        return self.report(strides * self.stride, inserted)

    def finish(self) -> CollectReport:
        inserted = sum(env.send() for env in self.environments) * self.repeat
        self.disk.env_steps += inserted
        return self.report(0, inserted)

    def report(self, stepped: int, inserted: int) -> CollectReport:
        held = sum(env.held for env in self.environments) * self.repeat
        return CollectReport(
            stepped, inserted, held, [EpisodeReport(1.0, stepped, self.version)], 0, self.version, 0, USAGE
        )
