"""Where a run stands, as gauges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from cluster.runtimes.runtime import Role
from cluster.supervision import Supervisor
from cluster.telemetry.numbers import Numbers
from cluster.weights import Lag
from common.config import Config
from common.reports import ReplayReport
from replay_service.limiter import RateLimiter


def run_gauges(numbers: Numbers, config: Config, began: float) -> None:
    """What the run is, and when this life of it began, in seconds since 1970."""
    names = (config.task, config.algorithm, config.objective, str(config.seed), config.runtime)
    numbers.set("run_info", 1, *names)
    numbers.set("start_timestamp_seconds", began)
    numbers.set("diverged", 0)
    numbers.set("env_steps_wanted", config.env_steps)
    numbers.set("replay_capacity_env_steps", config.replay.capacity)


def replay_gauges(numbers: Numbers, reports: Collection[ReplayReport]) -> None:
    """What the shards hold together."""
    numbers.set("replay_rows", sum(report.rows for report in reports))
    numbers.set("replay_env_steps", sum(report.env_steps for report in reports))
    numbers.set("replay_episodes", sum(report.episodes for report in reports))
    numbers.set("replay_windows", sum(report.windows for report in reports))
    numbers.set("replay_bytes", sum(report.bytes for report in reports))
    numbers.set("replay_trouble", any(report.trouble for report in reports))


def limiter_gauges(numbers: Numbers, limiter: RateLimiter) -> None:
    """How far the run has come, and where it stands in the limiter's band."""
    numbers.set("env_steps", limiter.env_steps)
    numbers.set("updates", limiter.updates)
    numbers.set("replay_ratio", limiter.updates / max(1, limiter.env_steps))
    numbers.set("replay_ratio_target", limiter.train_ratio)
    low, high = limiter.band
    numbers.set("replay_updates_ahead", limiter.error)
    numbers.set("replay_updates_ahead_low", low)
    numbers.set("replay_updates_ahead_high", high)


def weights_gauges(numbers: Numbers, version: int, lag: Lag) -> None:
    """How far the collectors' weights are behind the learner's."""
    numbers.set("weights_version", version)
    numbers.set("weights_lag_updates", lag.updates)
    numbers.set("weights_lag_seconds", lag.seconds)


def role_gauges(numbers: Numbers, roles: Iterable[Role], supervisor: Supervisor) -> None:
    """Who should be there and who is, by kind, and what was started again; and what supervision costs."""
    expected, alive = Counter[str](), Counter[str]()
    for role in roles:
        expected[role.kind] += 1
        alive[role.kind] += supervisor.is_here(role)
    for kind in expected:
        numbers.set("roles_expected", expected[kind], kind)
        numbers.set("roles_alive", alive[kind], kind)
        numbers.told("role_restarts_total", supervisor.restarts[kind], "supervisor", kind)
    numbers.told("supervision_cpu_seconds_total", supervisor.cost.seconds, "supervisor")
