"""The trajectory evaluator's held-out accuracy, step by step and over training (IDM section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from cluster.inspection.statistics import mean_interval
from cluster.inspection.subject import Subject
from cluster.look import COLOURS, GREY, TEXT, look
from common.seeding import derive_seed
from common.sequence import Rows
from learner.batch import Batch
from learner.behaviors.idm import Idm
from learner.behaviors.trajectory_evaluator import TrajectoryEvaluator, segment_count
from learner.reliability import judge

_FAR_APART = 20
Checkpoints = Iterator[tuple[Subject, Sequence[Rows]]]


def evaluator_of(subject: Subject) -> TrajectoryEvaluator | None:
    """The trajectory evaluator, where the behaviour has one."""
    behavior = subject.trained.behavior
    return behavior.evaluator if isinstance(behavior, Idm) else None


def inspect_reliability(
    checkpoints: Checkpoints, seed: int, picks: NDArray[np.intp], out: Path
) -> dict[str, Any] | None:
    """Judges held-out transitions with every checkpoint's evaluator, and writes evaluator.png.

    Args:
        checkpoints: subjects of one run with an evaluator, oldest first, each with episodes of its own policy; left out
            where one of these holds no segment of `idm.overshoot` steps.
        seed: of the states' samples.
        picks: resamples of the episodes.
        out: the folder.

    Returns:
        Numbers as JSON values: for each checkpoint accuracies by overshoot step (`both`, and of `real` and `fake`
        transitions alone), and the world model's KL on the same rows, in nats. None where all are left out.
    """
    found = []
    for subject, episodes in checkpoints:
        shortest = min(subject.config.training.batch_length, *map(len, episodes))
        if segment_count(shortest, subject.config.idm.overshoot):
            found.append(_measure(subject, episodes, seed, picks))
    if not found:
        return None
    _draw(subject, found, out / "evaluator.png")
    return {"overshoot": subject.config.idm.overshoot, "checkpoints": found, "files": ["evaluator.png"]}


def _measure(subject: Subject, episodes: Sequence[Rows], seed: int, picks: NDArray[np.intp]) -> dict[str, Any]:
    evaluator = evaluator_of(subject)
    assert evaluator is not None
    overshoot = subject.config.idm.overshoot
    real, fake, kl = [], [], []
    for number, episode in enumerate(episodes):
        generator = torch.Generator().manual_seed(derive_seed(seed, "inspection", "evaluator", number))
        windows = _windows(episode, subject.config.training.batch_length, every=-(-overshoot // 2))
        verdicts = judge(subject.trained.world_model, evaluator, windows, overshoot, generator)
        real.append(verdicts.real.double().mean(1).numpy())  # (T,)
        fake.append(verdicts.fake.double().mean(1).numpy())
        kl.append(verdicts.kl.double().mean().item())
    of_real, of_fake = np.stack(real), np.stack(fake)  # (E, T)
    return {
        "updates": subject.checkpoint.updates,
        "env_steps": subject.checkpoint.state["env_steps"],
        "accuracy": [
            {
                "step": step + 1,
                "both": mean_interval((of_real + of_fake)[:, step] / 2, picks),
                "real": float(of_real[:, step].mean()),
                "fake": float(of_fake[:, step].mean()),
            }
            for step in range(overshoot)
        ],
        "kl": mean_interval(np.array(kl), picks),
    }


def _windows(episode: Rows, length: int, every: int) -> Batch:
    """An episode's windows of `length` rows (W, L), one beginning every so many rows; they overlap as in training."""
    length = min(length, len(episode))
    starts = torch.arange(0, len(episode) - length + 1, every)
    rows = starts.unsqueeze(-1) + torch.arange(length)  # (W, L)
    return Batch.from_rows(episode, torch.device("cpu")).map(lambda part: part[rows])


def _draw(subject: Subject, found: Sequence[dict[str, Any]], out: Path) -> None:
    over_training = len(found) > 1
    with look():
        figure = Figure(figsize=(10.6 if over_training else 4.4, 3.3), layout="constrained")
        if over_training:
            trained, steps, kl = figure.subplots(1, 3, width_ratios=(1.35, 1, 0.8))
            _over_training(figure, trained, found)
            trained.sharey(steps)
            _kl(kl, found)
        else:
            steps = figure.subplots()
        _by_step(steps, found[-1])
        lowest = min(min(step["real"], step["fake"], step["both"]["mean"]) for step in found[-1]["accuracy"])
        lowest = min(lowest, *(step["both"]["mean"] for each in found for step in each["accuracy"]))
        steps.set_ylim(max(0.0, min(0.5, lowest) - 0.12), 1.005)  # room for the legend below
        title = f"{subject.config.task.rpartition(':')[2]}, {subject.label}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=GREY)
        figure.savefig(out, dpi=160)


def _over_training(figure: Figure, axis: Axes, found: Sequence[dict[str, Any]]) -> None:
    updates = [each["updates"] for each in found]
    steps = len(found[0]["accuracy"])
    colours = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.92, steps))
    cmap = matplotlib.colors.ListedColormap(colours)
    for step in range(steps):
        values = [each["accuracy"][step]["both"]["mean"] for each in found]
        axis.plot(updates, values, "-o", color=colours[step], linewidth=1.5, markersize=3)
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0.5, steps + 0.5), cmap)
    bar = figure.colorbar(scale, ax=axis, pad=0.02, aspect=28, label="overshoot step")
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(6, integer=True)
    bar.update_ticks()
    _accuracy_axis(axis)
    axis.set_title("held-out accuracy over training")
    _updates_axis(axis, updates)


def _by_step(axis: Axes, newest: dict[str, Any]) -> None:
    steps = [each["step"] for each in newest["accuracy"]]
    both = [each["both"] for each in newest["accuracy"]]
    axis.plot(steps, [each["mean"] for each in both], "-o", color=COLOURS[0], markersize=3, linewidth=1.7, label="both")
    if both[0]["low"] is not None:
        low, high = ([each[end] for each in both] for end in ("low", "high"))
        axis.fill_between(steps, low, high, color=COLOURS[0], alpha=0.14, linewidth=0)
    for name, line in (("real", "--"), ("fake", ":")):
        axis.plot(steps, [each[name] for each in newest["accuracy"]], line, color=GREY, linewidth=1.2, label=name)
    _accuracy_axis(axis)
    axis.set_title(f"at {newest['updates']:,} updates")
    axis.set_xlabel("overshoot step")
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axis.legend(frameon=False, labelcolor=TEXT, loc="lower right", ncols=3, fontsize=8)


def _kl(axis: Axes, found: Sequence[dict[str, Any]]) -> None:
    updates = [each["updates"] for each in found]
    axis.plot(updates, [each["kl"]["mean"] for each in found], "-o", color=COLOURS[1], linewidth=1.7, markersize=3)
    if found[0]["kl"]["low"] is not None:
        low, high = ([each["kl"][end] for each in found] for end in ("low", "high"))
        axis.fill_between(updates, low, high, color=COLOURS[1], alpha=0.14, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.set_title("KL, same episodes")
    axis.set_ylabel("KL(posterior ‖ prior), nats")
    _updates_axis(axis, updates)


def _updates_axis(axis: Axes, updates: Sequence[int]) -> None:
    """Logarithmic where kept checkpoints begin early."""
    axis.set_xlabel("updates")
    if updates[0] > 0 and updates[-1] >= _FAR_APART * updates[0]:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _accuracy_axis(axis: Axes) -> None:
    axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylabel("transitions told right")
