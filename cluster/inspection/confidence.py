"""Is the model right where it is sure? Confidence of open-loop steps against their error (BIRD, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from cluster.inspection.statistics import spearman_interval
from cluster.inspection.subject import Subject
from cluster.look import COLOURS, GREY, TEXT, look
from common.sequence import Rows
from learner.batch import Batch
from learner.foresight import foresee, observe

STARTS = 40
"""Rows of each episode that are predicted from, spread over it."""
CONFIDENCES = ("sample_density", "expected_density", "posterior_density")
ERRORS = ("kl", "image_error")
_BINS = 8

Values = dict[str, NDArray[np.floating]]


def inspect_confidence(
    subject: Subject, episodes: Sequence[Rows], horizon: int, seed: int, picks: NDArray[np.intp], out: Path
) -> dict[str, Any]:
    """Predicts from many rows under the stored actions, measures, and writes confidence.png.

    Args:
        subject: predicts.
        episodes: held-out ones; each is filtered from its start.
        horizon: steps of each prediction (T).
        seed: of the samples.
        picks: resamples of the episodes.
        out: the folder.

    Returns:
        Numbers as JSON values: rank correlations over all steps (`all_steps`), over whole trajectories, summed over
        their steps as BIRD's weight is (`trajectory`), and of each step by itself (`by_step`).
    """
    starts = min(STARTS, min(map(len, episodes)) - horizon)
    by_episode = [_foresee(subject, episode, starts, horizon, seed, number) for number, episode in enumerate(episodes)]
    values = {
        name: np.stack([each[name] for each in by_episode]) for name in (*CONFIDENCES, *ERRORS) if name in by_episode[0]
    }  # (E, T, starts)
    pairs = [(sure, wrong) for sure in CONFIDENCES for wrong in ERRORS if wrong in values]
    correlations = [
        {
            "confidence": sure,
            "error": wrong,
            "all_steps": spearman_interval(values[sure], values[wrong], picks),
            "trajectory": spearman_interval(values[sure].sum(1), values[wrong].sum(1), picks),
            "by_step": [
                spearman_interval(values[sure][:, step], values[wrong][:, step], picks) for step in range(horizon)
            ],
        }
        for sure, wrong in pairs
    ]
    _draw(subject, values, correlations, out / "confidence.png")
    return {
        "horizon": horizon,
        "starts": starts * len(episodes),
        "mean_by_step": {name: value.mean((0, 2)).tolist() for name, value in values.items()},
        "spearman": correlations,
        "files": ["confidence.png"],
    }


def _foresee(subject: Subject, episode: Rows, starts: int, horizon: int, seed: int, number: int) -> Values:
    """Each quantity of `ConfidenceAndError` that there is, (T, starts)."""
    model = subject.trained.world_model
    batch = Batch.from_rows(episode, torch.device("cpu")).map(lambda part: part[None])
    size = model.rssm.stoch_size
    posterior, _ = observe(model, batch, subject.noise(seed, f"confidence filter {number}", len(episode), 1, size))
    rows = torch.linspace(0, len(episode) - 1 - horizon, starts).round().long()
    noise = subject.noise(seed, f"confidence {number}", horizon, starts, size)
    found = foresee(model, posterior.map(lambda part: part[:, 0]), batch.action[0], batch.image[0], rows, noise)
    return {name: value.double().numpy() for name, value in found._asdict().items() if value is not None}


def _draw(subject: Subject, values: Values, correlations: Sequence[dict[str, Any]], out: Path) -> None:
    errors = [name for name in ERRORS if name in values]
    titles = {
        "kl": ("KL", "KL(posterior ‖ prediction), nats"),
        "image_error": ("image", "½‖ô − o‖², nats an image"),
    }
    with look():
        figure = Figure(figsize=(3.7 * (1 + len(errors)), 3.5), layout="constrained")
        axes = figure.subplots(1, 1 + len(errors))
        for axis, name in zip(axes, errors, strict=False):
            points = _scatter(axis, values["sample_density"], values[name])
            found = next(c for c in correlations if (c["confidence"], c["error"]) == ("sample_density", name))
            axis.set_title(f"{titles[name][0]}: {_rho(found['all_steps'])}")
            axis.set_xlabel("ln density of the predicted sample")
            axis.set_ylabel(titles[name][1])
        bar = figure.colorbar(points, ax=list(axes[: len(errors)]), pad=0.01, aspect=28, label="step")
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(6, integer=True)
        bar.update_ticks()
        _by_step(axes[-1], correlations)
        figure.suptitle(
            f"{subject.config.task.rpartition(':')[2]}, {subject.label}", x=0.01, ha="left", fontsize=9, color=GREY
        )
        figure.savefig(out, dpi=160)


def _scatter(axis: Axes, sure: NDArray[np.floating], wrong: NDArray[np.floating]) -> Any:
    """Dots coloured by their step, under the median of bins with equally many."""
    steps = np.broadcast_to(1 + np.arange(sure.shape[1])[None, :, None], sure.shape)
    colours = LinearSegmentedColormap.from_list("steps", matplotlib.colormaps["viridis"](np.linspace(0.05, 0.92, 64)))
    order = np.random.default_rng(0).permutation(sure.size)  # so that late steps do not cover early ones
    x, y, c = (part.reshape(-1)[order] for part in (sure, wrong, steps))
    points = axis.scatter(x, y, c=c, s=5, alpha=0.45, linewidths=0, cmap=colours, rasterized=True)
    bins = np.array_split(np.argsort(x), _BINS)
    axis.plot(
        [np.median(x[each]) for each in bins],
        [np.median(y[each]) for each in bins],
        "-o",
        color="black",
        linewidth=1.4,
        markersize=3.5,
        label="median of an eighth of the steps",
    )
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.legend(frameon=False, loc="lower left", fontsize=7.5, labelcolor=TEXT)
    return points


def _by_step(axis: Axes, correlations: Sequence[dict[str, Any]]) -> None:
    looks = {"sample_density": "-", "expected_density": ":"}
    colours = {"kl": COLOURS[0], "image_error": COLOURS[1]}
    labels = {"kl": "KL", "image_error": "image"}
    words = {"sample_density": "sampled density", "expected_density": "its expectation"}
    for found in correlations:
        if found["confidence"] not in looks:
            continue
        rho = [np.nan if each["rho"] is None else each["rho"] for each in found["by_step"]]
        steps = 1 + np.arange(len(rho))
        colour, line = colours[found["error"]], looks[found["confidence"]]
        label = f"{labels[found['error']]}, {words[found['confidence']]}"
        axis.plot(steps, rho, line, color=colour, linewidth=1.6, label=label)
        if line == "-" and found["by_step"][0]["low"] is not None:
            low, high = ([each[end] for each in found["by_step"]] for end in ("low", "high"))
            axis.fill_between(steps, low, high, color=colour, alpha=0.14, linewidth=0)
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_ylim(-1, 1)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.set_title("each step by itself")
    axis.set_xlabel("step")
    axis.set_ylabel("Spearman's ρ (−1: sure is right)")
    axis.legend(frameon=False, loc="best", fontsize=7.5, labelcolor=TEXT)


def _rho(found: dict[str, Any]) -> str:
    if found["rho"] is None:
        return "ρ undefined"
    interval = f" ({found['low']:+.2f} to {found['high']:+.2f})" if found["low"] is not None else ""
    return f"ρ = {found['rho']:+.2f}{interval}".replace("-", "−")
