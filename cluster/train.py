"""`dreamfleet train`: checks everything first, then begins or resumes a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from actors.rendering import ProbeReport, probe
from cluster.coordinator import Coordinator
from cluster.offline import OfflineData
from cluster.progress import Progress, duration
from cluster.redis_access import check_servers, new_prefix, read_password
from cluster.run import run
from cluster.runtimes.inline import InlineRuntime
from cluster.runtimes.ray_runtime import RayRuntime
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import Runtime
from cluster.settings import as_record, changes_on_resume, parse_train
from cluster.telemetry.exposure import exposed
from cluster.telemetry.telemetry import Telemetry
from common.config import Config
from common.config_io import to_yaml
from common.errors import UserError
from common.run_folder import RunFolder

RUNTIMES: dict[str, type[InlineRuntime] | type[RayRuntime]] = {"inline": InlineRuntime, "ray": RayRuntime}


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse_train(args)
    config, folder = arguments.settings, RunFolder(arguments.run_dir)
    config = with_redis_prefix(config, folder)
    changes = changes_on_resume(folder.load_config(), config) if folder.exists else {}
    if arguments.dry_run:
        print(to_yaml(config), end="")
        return 0
    if is_finished(folder, config):
        print(f"{folder.path} is finished: {config.env_steps:,} environment steps (raise --env-steps to go on)")
        return 0
    _refuse_damage(folder)
    device = resolve_device(config)
    found = probe(config.task, config.environment)
    offline = _offline(config, folder, found.action_size, arguments.redis_password_file) if config.offline else None
    password = read_password(arguments.redis_password_file) if config.replay_store == "redis" else ""
    warnings = [*_warnings(config), *(check_servers(config, password) if config.replay_store == "redis" else ())]
    runtime = RUNTIMES[config.runtime](Setting(config, found.action_size, found.gl, folder.replay, device, password))
    try:
        summary = _run(config, folder, runtime, found, changes, [w for w in (found.warning, *warnings) if w], offline)
    finally:
        runtime.shutdown()
    print(describe(summary, folder))
    return 0


def _run(
    config: Config,
    folder: RunFolder,
    runtime: Runtime,
    found: ProbeReport,
    changes: Mapping[str, tuple[Any, Any]],
    warnings: Sequence[str],
    offline: OfflineData | None,
) -> dict[str, Any]:
    """Claims the folder and runs in it; the summary."""
    folder.lock()
    if summary := folder.summary():
        folder.write_summary({**summary, "finished": False})  # or a kill from here on would look like the end
    folder.create(config)
    if changes:
        newest = folder.newest_checkpoint()
        state: dict[str, Any] = dict(newest.state) if newest else {}
        counts = {name: state.get(name, 0) for name in ("env_steps", "updates", "wall_seconds")}
        folder.append_metrics({**counts, "config_changes": as_record(changes)})
    telemetry = Telemetry(folder)
    with exposed(config, folder, telemetry) as address, Progress(config, config.env_steps) as progress:
        progress.message(f"{config.task}: actions of size {found.action_size}, drawn by {found.renderer or found.gl}")
        if address:
            progress.message(f"metrics: {address}")
        for warning in warnings:
            progress.message(f"warning: {warning}")
        coordinator = Coordinator(config, folder, runtime, found.action_size, progress, telemetry, offline)
        result = run(coordinator)
    folder.unlock()
    return result


def _offline(config: Config, folder: RunFolder, action_size: int, password_file: str) -> OfflineData:
    """The data that the run trains from; a run that begins with it looks at all of it first."""
    data = OfflineData(config, action_size, password_file)
    if folder.newest_checkpoint() is None:
        data.check()
    return data


def with_redis_prefix(config: Config, folder: RunFolder) -> Config:
    """A run on Redis that names no keys takes the saved run's, or else new ones."""
    if config.replay_store != "redis" or config.redis_prefix:
        return config
    saved = folder.load_config().redis_prefix if folder.exists else ""
    return dataclasses.replace(config, redis_prefix=saved or new_prefix(folder.path.resolve().name))


def resolve_device(config: Config) -> str:
    """The device that `--device` means on this machine.

    Raises:
        UserError: CUDA is asked for and not there, or shares the process with EGL.
    """
    available = torch.cuda.is_available()
    device = config.device if config.device != "auto" else ("cuda" if available else "cpu")
    if device.startswith("cuda") and not available and not config.ray_address:
        raise UserError(f"--device {device}: PyTorch sees no GPU here; use --device cpu")
    if device.startswith("cuda") and not config.ray_address and config.learners > torch.cuda.device_count():
        raise UserError(
            f"--learners {config.learners}: each needs a GPU of its own, and this machine has "
            f"{torch.cuda.device_count()}"
        )
    if device.startswith("cuda") and config.runtime == "inline" and config.environment.gl != "osmesa":
        raise UserError(
            "--runtime inline with --device cuda needs --environment.gl osmesa: CUDA and EGL do not share a process"
        )
    return device


def describe(summary: dict[str, Any], folder: RunFolder) -> str:
    """The summary for people."""

    def mean(name: str) -> str:
        return "none" if summary[name] is None else f"{summary[name]:.1f}"

    end = "finished" if summary["finished"] else "stopped; the same command resumes it"
    return "\n".join(
        (
            f"{folder.path}: {end}",
            f"  {summary['env_steps']:,} environment steps, {summary['updates']:,} updates, "
            f"{duration(summary['wall_seconds'])}",
            f"  mean return: random actions {mean('random_return')}, before training {mean('first_return')}, "
            f"now {mean('last_return')}",
        )
    )


def is_finished(folder: RunFolder, config: Config) -> bool:
    """Whether the run in the folder has ended, and not before the configuration's environment steps."""
    summary = folder.summary() if folder.exists else None
    return summary is not None and summary["finished"] and config.env_steps <= folder.load_config().env_steps


def _refuse_damage(folder: RunFolder) -> None:
    """A run with checkpoints of which none is whole would begin anew without a word, its counters going back.

    One that was copied without its hidden files would name new rows as old ones, which the replay has already.
    """
    newest = folder.newest_checkpoint()
    if newest is not None and not folder.has_counts:
        raise UserError(
            f"{folder.path} has lost its hidden files, .incarnation and .weights_version: copy them too, as cp -a does"
        )
    if newest is None and folder.skipped:
        raise UserError(
            f"every checkpoint in {folder.skipped[0].parent} is damaged; move them away to train anew on the run's "
            "replay, or name another --run-dir"
        )


def _warnings(config: Config) -> Iterator[str]:
    if config.replay_store == "memory":
        yield "the memory store is lost with its process"
    if config.algorithm == "soft_bird" and config.soft_bird.entropy == "gaussian":
        yield "--soft-bird.entropy gaussian has no upper bound: the policy may be paid for widening for ever"
