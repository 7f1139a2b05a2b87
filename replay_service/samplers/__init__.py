"""How windows are drawn: one small interface, one way a file, chosen by name.

A new way is a file here, a line in `SAMPLERS` and its name in `ReplayConfig.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable

from common.config import ReplayConfig
from replay_service.samplers.prioritized import Prioritized
from replay_service.samplers.recent import Recent
from replay_service.samplers.sampler import Sampler
from replay_service.samplers.uniform_episode import UniformEpisode
from replay_service.samplers.uniform_step import UniformStep

__all__ = ["SAMPLERS", "Prioritized", "Recent", "Sampler", "UniformEpisode", "UniformStep"]

SAMPLERS: dict[str, Callable[[ReplayConfig], Sampler]] = {
    "uniform_step": lambda _: UniformStep(),
    "uniform_episode": lambda _: UniformEpisode(),
    "recent": lambda config: Recent(config.recent_fraction, config.recent_windows // config.shards),
    "prioritized": lambda config: Prioritized(config.priority_exponent),
}
