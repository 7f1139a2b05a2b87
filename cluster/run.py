"""A training run: how it begins, from its newest checkpoint or from nothing, and how it ends."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from cluster.coordinator import Coordinator
from cluster.evaluations import Evaluations
from cluster.recorder import Recorder
from cluster.runtimes.runtime import EVALUATOR, LEARNER
from cluster.stopping import settle, stopped_by_signals
from cluster.telemetry.gauges import run_gauges
from common.checkpoint import Checkpoint
from common.errors import UserError
from common.room import Room
from replay_service.stores.trouble import StoreGaveUpError


def run(coordinator: Coordinator) -> dict[str, Any]:
    """Trains to the end, or until asked to stop; returns the summary."""
    with stopped_by_signals(coordinator):
        try:
            _begin(coordinator)
            while not _settled(coordinator):
                while not _finished(coordinator):
                    coordinator.grant()
                    coordinator.step()
            return _end(coordinator)
        except StoreGaveUpError as error:
            _save(coordinator, error)
            raise
        except FloatingPointError:
            coordinator.telemetry.numbers.set("diverged", 1)
            coordinator.tell()
            raise
        finally:
            if hasattr(coordinator, "recorder"):
                coordinator.recorder.close()


def _begin(coordinator: Coordinator) -> None:
    """Starts every role, with what the newest checkpoint and the stores hold."""
    config, folder, limiter = coordinator.config, coordinator.folder, coordinator.limiter
    tell = coordinator.progress.message
    checkpoint = folder.newest_checkpoint()
    for damaged in folder.skipped:
        tell(f"checkpoint {damaged} is damaged: using the one before it")
    state: dict[str, Any] = dict(checkpoint.state) if checkpoint is not None else {}
    wall_seconds = state.get("wall_seconds", 0.0)
    numbers = coordinator.telemetry.numbers
    run_gauges(numbers, config, time.time())
    if checkpoint is not None:
        numbers.set("checkpoint_timestamp_seconds", checkpoint.path.stat().st_mtime)
    if coordinator.offline is None:
        numbers.at_least("env_steps_total", state.get("env_steps", 0))
    numbers.at_least("updates_total", state.get("updates", 0))  # or the first line would tell of all of them as new
    coordinator.recorder = Recorder(
        folder, coordinator.telemetry, wall_seconds, state.get("best_return"), state.get("env_steps")
    )
    coordinator.evaluations = Evaluations(config, folder, coordinator.recorder, tell)
    for role in [*coordinator.shards, LEARNER, EVALUATOR]:
        coordinator.supervisor.start(role)
    stored = sum(report.inserted_env_steps for report in coordinator.ask_shards())
    if coordinator.offline is not None:
        coordinator.offline.env_steps = state.get("offline_env_steps")
        coordinator.fill(coordinator.offline)
    if checkpoint is not None:
        _resume(coordinator, checkpoint, stored)
    elif stored and coordinator.offline is None:
        limiter.restore(limiter.state(), stored)
        tell(f"no checkpoint yet: taking up {stored:,} environment steps from the replay store")
    if coordinator.offline is None:
        numbers.at_least("env_steps_total", limiter.env_steps)
    numbers.at_least("updates_total", limiter.updates)
    coordinator.control.look()
    coordinator.control.apply(coordinator.recorder)
    if about := coordinator.ask_learner("about_batches"):
        tell(str(about))
    coordinator.publish()
    coordinator.evaluations.want_first(coordinator.weights, limiter.env_steps)
    coordinator.fleet.begin(state.get("collectors"))


def _resume(coordinator: Coordinator, checkpoint: Checkpoint, stored: int) -> None:
    """Hands everybody their part of a checkpoint; the stores know of so many environment steps."""
    limiter, state = coordinator.limiter, checkpoint.state
    coordinator.ask_learner("restore", checkpoint.files())
    coordinator.weights_version = state["weights_version"]
    coordinator.evaluations.restore(state["evaluations"])
    for role, random_state in zip(coordinator.shards, state["replay_random_states"], strict=True):
        if random_state is not None:  # or the shard hung when the run was stopped
            coordinator.calls.ask(role, "set_random_state", random_state)
    limiter.restore(state["limiter"], stored)
    adjusted = limiter.train_ratio if limiter.train_ratio != coordinator.config.train_ratio else None
    dropped = limiter.replay_debt_dropped_updates
    coordinator.progress.message(
        f"resumed at {limiter.env_steps:,} environment steps, {limiter.updates:,} updates"
        + (f"; {dropped:,.0f} updates of replay debt dropped" if dropped else "")
        + (f"; the train ratio was adjusted to {adjusted:g}" if adjusted else "")
    )


def _finished(coordinator: Coordinator) -> bool:
    if coordinator.stop_requested:
        return True
    more = coordinator.limiter.updates_owed() or coordinator.at_work or coordinator.evaluations.wanted
    return coordinator.collected_all() and not more


def _settled(coordinator: Coordinator) -> bool:
    """Whether the run is still at its end once all is stored and saved: who held rows, or had learnt, may be dead."""
    if not _finished(coordinator):
        return False
    settle(coordinator)
    coordinator.recount()  # what the run's last line tells of the replay is what it holds
    coordinator.publish()
    if not coordinator.stop_requested:
        coordinator.checkpoint()  # what follows takes a while
    return _finished(coordinator)


def _end(coordinator: Coordinator) -> dict[str, Any]:
    """Evaluates unless asked to stop, and writes checkpoint and summary."""
    evaluations = coordinator.evaluations
    if not coordinator.stop_requested:
        evaluations.want(coordinator.weights, coordinator.limiter.env_steps, coordinator.config.final_eval_episodes)
        while (evaluations.wanted or coordinator.busy) and not coordinator.stop_requested:
            coordinator.grant_evaluation()
            coordinator.step()
    finished = not coordinator.stop_requested
    if coordinator.recorder.anything_new:
        coordinator.log()
    coordinator.checkpoint()
    summary = _summary(coordinator, finished)
    coordinator.folder.write_summary(summary)
    coordinator.tell()
    return summary


def _save(coordinator: Coordinator, gave_up: StoreGaveUpError) -> None:
    """A checkpoint when the replay store has been away for too long; what it did not take is lost."""
    coordinator.folder.room = Room()  # one disk may be full for both, and was waited for
    coordinator.supervisor.excused = False  # who does not come back now does not wait for the store
    try:
        while coordinator.busy:
            with contextlib.suppress(StoreGaveUpError):
                coordinator.calls.take_in()
        coordinator.checkpoint()
    except UserError as error:
        raise UserError(f"{gave_up}, from the checkpoint before: {error}") from gave_up


def _summary(coordinator: Coordinator, finished: bool) -> dict[str, Any]:
    config, limiter, recorder = coordinator.config, coordinator.limiter, coordinator.recorder
    return {
        "finished": finished,
        "task": config.task,
        "algorithm": config.algorithm,
        "seed": config.seed,
        "env_steps": limiter.env_steps,
        "updates": limiter.updates,
        "wall_seconds": recorder.wall_seconds,
        "random_return": coordinator.evaluations.random_return,
        "first_return": coordinator.evaluations.first_return,
        "last_return": coordinator.evaluations.last_return,
        "best_episode_return": recorder.best_return,
        "weights_version": coordinator.weights_version,
        "role_restarts": coordinator.supervisor.restarts,
        "insert_wait_seconds": limiter.insert_wait_seconds,
        "update_wait_seconds": limiter.update_wait_seconds,
        "replay_debt_dropped_updates": limiter.replay_debt_dropped_updates,
        "resident_bytes": recorder.memory,
    }
