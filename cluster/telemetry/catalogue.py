"""Every number that a run tells: its name, its kind and what it means."""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "dreamfleet_"
UPDATE_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


class Metric(NamedTuple):
    """One family of series.

    Attributes:
        name: without the prefix, in base units.
        kind: counters never go back, in resumed runs neither.
        help: one line.
        labels: names of what tells its series apart; each has a bounded set of values.
        buckets: a histogram's upper bounds, ascending.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_COUNTERS = (
    Metric("env_steps_total", "counter", "Environment steps inserted into the replay."),
    Metric("episodes_total", "counter", "Training episodes that ended."),
    Metric("updates_total", "counter", "Learner updates done, those that a failure undid included."),
    Metric("batch_wait_seconds_total", "counter", "Time the learner waited for batches."),
    Metric("batch_bytes_total", "counter", "Bytes that the learner's device was given for its batches."),
    Metric("insert_wait_seconds_total", "counter", "Time collectors waited for inserts to be acknowledged."),
    Metric("update_blocked_seconds_total", "counter", "Time the learner was held back: too few environment steps."),
    Metric("insert_blocked_seconds_total", "counter", "Time the collectors were held back: too few updates."),
    Metric("chunks_inserted_total", "counter", "Chunks newly stored by the replay."),
    Metric("sequences_sampled_total", "counter", "Training windows drawn from the replay."),
    Metric("environment_failures_total", "counter", "Environments rebuilt after an exception."),
    Metric("role_restarts_total", "counter", "Roles started again after their process was gone.", ("role",)),
    Metric("cpu_seconds_total", "counter", "CPU time of the roles' processes.", ("role",)),
    Metric("telemetry_cpu_seconds_total", "counter", "CPU time spent on telemetry, part of cpu_seconds."),
    Metric("supervision_cpu_seconds_total", "counter", "CPU time spent on supervision, part of cpu_seconds."),
)
_HISTOGRAMS = (
    Metric(
        "update_seconds",
        "histogram",
        "Duration of an update without the wait for its batch: the mean over each call of the learner.",
        buckets=UPDATE_SECONDS,
    ),
)
_GAUGES = (
    Metric("run_info", "gauge", "1; the labels name the run.", ("task", "algorithm", "objective", "seed", "runtime")),
    Metric("env_steps", "gauge", "Environment steps where the run stands."),
    Metric("env_steps_wanted", "gauge", "Environment steps where the run ends."),
    Metric("updates", "gauge", "Updates behind the learner's parameters."),
    Metric("episode_return", "gauge", "Undiscounted return of the newest training episode."),
    Metric("evaluation_return", "gauge", "Mean return of the newest evaluation.", ("rotation_degrees",)),
    Metric("training_metric", "gauge", "What the newest updates measured: losses, KL, gradient norms.", ("name",)),
    Metric("diverged", "gauge", "1 once a loss is not finite, which ends the run; 0 before."),
    Metric("replay_rows", "gauge", "Rows that the replay holds."),
    Metric("replay_env_steps", "gauge", "Environment steps that the replay holds."),
    Metric("replay_capacity_env_steps", "gauge", "Environment steps that the replay can hold."),
    Metric("replay_episodes", "gauge", "Episodes that the replay holds."),
    Metric("replay_windows", "gauge", "Training windows that can be drawn."),
    Metric("replay_bytes", "gauge", "Bytes of the chunks that the replay holds."),
    Metric("replay_trouble", "gauge", "1 while a replay store takes or gives nothing."),
    Metric("replay_ratio", "gauge", "Updates per environment step, over the run."),
    Metric("replay_ratio_target", "gauge", "Updates per environment step that were asked for, past the prefill."),
    Metric("replay_updates_ahead", "gauge", "Updates done beyond those that the environment steps call for."),
    Metric("replay_updates_ahead_low", "gauge", "Below this collectors wait for the learner."),
    Metric("replay_updates_ahead_high", "gauge", "From this on the learner waits for collectors."),
    Metric("weights_version", "gauge", "Newest weights that were published."),
    Metric("weights_lag_updates", "gauge", "Updates since those weights that the collector most behind acts with."),
    Metric("weights_lag_seconds", "gauge", "Time that the collector most behind has had newer weights to take."),
    Metric("roles_alive", "gauge", "Roles that can be called.", ("role",)),
    Metric(
        "roles_expected",
        "gauge",
        "Roles that should be there; collectors above the minimum only with a place.",
        ("role",),
    ),
    Metric("resident_memory_bytes", "gauge", "Private memory of a role's process.", ("role", "number")),
    Metric("gpu_busy_ratio", "gauge", "Part of the time in which the learner's GPU computed; absent without one."),
    Metric("gpu_memory_used_bytes", "gauge", "Memory of the learner's GPU in use, by anybody."),
    Metric("gpu_memory_total_bytes", "gauge", "Memory of the learner's GPU."),
    Metric("start_timestamp_seconds", "gauge", "When this life of the run began."),
    Metric("report_timestamp_seconds", "gauge", "When these numbers were put together."),
    Metric("last_update_timestamp_seconds", "gauge", "When the learner last told of an update."),
    Metric("checkpoint_timestamp_seconds", "gauge", "When the newest checkpoint was written."),
)
METRICS = {metric.name: metric for metric in (*_COUNTERS, *_HISTOGRAMS, *_GAUGES)}
