"""`dreamfleet train`: checks everything first, then begins or resumes a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from actors.rendering import ProbeReport, probe
from cluster.coordinator import Coordinator
from cluster.progress import Progress, duration
from cluster.runtimes.inline import InlineRuntime
from cluster.runtimes.ray_runtime import RayRuntime
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import Runtime
from cluster.settings import as_record, changes_on_resume, parse_train
from common.config import Config
from common.config_io import to_yaml
from common.errors import UserError
from common.run_folder import RunFolder

RUNTIMES: dict[str, type[InlineRuntime] | type[RayRuntime]] = {"inline": InlineRuntime, "ray": RayRuntime}


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse_train(args)
    config, folder = arguments.settings, RunFolder(arguments.run_dir)
    changes = changes_on_resume(folder.load_config(), config) if folder.exists else {}
    if arguments.dry_run:
        print(to_yaml(config), end="")
        return 0
    if _is_finished(folder, config):
        print(f"{folder.path} is finished: {config.env_steps:,} environment steps (raise --env-steps to go on)")
        return 0
    _refuse_damage(folder)
    device = resolve_device(config)
    found = probe(config.task, config.environment)
    runtime = RUNTIMES[config.runtime](Setting(config, found.action_size, found.gl, folder.replay, device))
    try:
        summary = _run(config, folder, runtime, found, changes)
    finally:
        runtime.shutdown()
    print(describe(summary, folder))
    return 0


def _run(
    config: Config, folder: RunFolder, runtime: Runtime, found: ProbeReport, changes: Mapping[str, tuple[Any, Any]]
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
    with Progress(config, config.env_steps) as progress:
        progress.message(f"{config.task}: actions of size {found.action_size}, drawn by {found.renderer or found.gl}")
        for warning in (found.warning, _memory_warning(config)):
            if warning:
                progress.message(f"warning: {warning}")
        result = Coordinator(config, folder, runtime, found.action_size, progress).run()
    folder.unlock()
    return result


def resolve_device(config: Config) -> str:
    """The device that `--device` means on this machine.

    Raises:
        UserError: CUDA is asked for and not there, or shares the process with EGL.
    """
    available = torch.cuda.is_available()
    device = config.device if config.device != "auto" else ("cuda" if available else "cpu")
    if device.startswith("cuda") and not available and not config.ray_address:
        raise UserError(f"--device {device}: PyTorch sees no GPU here; use --device cpu")
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


def _is_finished(folder: RunFolder, config: Config) -> bool:
    summary = folder.summary() if folder.exists else None
    return summary is not None and summary["finished"] and config.env_steps <= folder.load_config().env_steps


def _refuse_damage(folder: RunFolder) -> None:
    """A run with checkpoints of which none is whole would begin anew without a word, its counters going back."""
    if folder.newest_checkpoint() is None and folder.skipped:
        raise UserError(
            f"every checkpoint in {folder.skipped[0].parent} is damaged; move them away to train anew on the run's "
            "replay, or name another --run-dir"
        )


def _memory_warning(config: Config) -> str:
    return "the memory store is lost with its process" if config.replay_store == "memory" else ""
