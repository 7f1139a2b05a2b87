"""Decoded states with noise on them, one model beside another (IDM, figure 1), and how far the pictures move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray
from torch import Tensor

from cluster.inspection.sheet import IMAGE, Sheet, as_pixels
from cluster.inspection.statistics import mean_interval
from cluster.inspection.subject import Subject
from cluster.look import COLOURS, GREY, TEXT, look
from common.sequence import Rows
from learner.batch import Batch
from learner.disturbance import FORMS, Form, disturb
from learner.foresight import draw, image_error, observe
from learner.world_model.state import State

ROWS = 10
"""Rows of each episode that are disturbed, spread over it."""
DRAWS = 8
"""Disturbed copies of each."""
_SHOWN_ROWS = 5
_SHOWN_DRAWS = {1: 6, 2: 4}  # by the number of models
_SCALE = 2
_TILE = _SCALE * IMAGE
_GAP = 4


class Disturbed(NamedTuple):
    """What one model makes of the same rows.

    Attributes:
        decoded: (R, 64, 64, 3), drawn of the sampled posterior states.
        shown: (K, R, 64, 64, 3), drawn of their disturbed copies at the noise of the pictures.
        numbers: JSON values.
    """

    decoded: NDArray[np.floating]
    shown: NDArray[np.floating]
    numbers: dict[str, Any]


def inspect_memories(
    subjects: Sequence[Subject],
    episodes: Sequence[Rows],
    sigma: float,
    levels: Sequence[float],
    seed: int,
    picks: NDArray[np.intp],
    out: Path,
) -> dict[str, Any]:
    """Disturbs states of held-out rows, measures, and writes memories.png and memories_error.png.

    Every model filters the same images and stored actions from the start of each episode, with the same noise where its
    states are as large.

    Args:
        subjects: one or two models.
        episodes: held-out ones, of each model's policy in turn.
        sigma: standard deviation of the noise in the picture, which is that of IDM's figure 1: added to h and s.
        levels: standard deviations that are measured.
        seed: of the noise.
        picks: resamples of the episodes.
        out: the folder.

    Returns:
        Numbers as JSON values, in nats an image (½‖·‖²).
    """
    rows = [np.unique(np.rint(np.linspace(0, len(episode) - 1, ROWS)).astype(np.intp)) for episode in episodes]
    fewest = min(map(len, rows))
    rows = [each[:fewest] for each in rows]
    truth = np.concatenate([episode.image[each] for episode, each in zip(episodes, rows, strict=True)])
    truth = truth.astype(np.float32) / 255 - 0.5  # (R, 64, 64, 3), an episode's rows together
    results = [_measure(subject, episodes, rows, truth, sigma, levels, seed, picks) for subject in subjects]
    _picture(subjects, results, truth, len(episodes), sigma).save(out / "memories.png")
    _draw_errors(subjects, results, levels, out / "memories_error.png")
    return {
        "noise": sigma,
        "levels": list(levels),
        "episodes": len(episodes),
        "rows": len(truth),
        "draws": DRAWS,
        "runs": [{**subject.describe(), **result.numbers} for subject, result in zip(subjects, results, strict=True)],
        "files": ["memories.png", "memories_error.png"],
    }


def _measure(
    subject: Subject,
    episodes: Sequence[Rows],
    rows: Sequence[NDArray[np.intp]],
    truth: NDArray[np.floating],
    sigma: float,
    levels: Sequence[float],
    seed: int,
    picks: NDArray[np.intp],
) -> Disturbed:
    model = subject.trained.world_model
    state = _states(subject, episodes, rows, seed)
    noise_h = subject.noise(seed, "memories h", DRAWS, len(truth), model.rssm.deter_size)
    noise_s = subject.noise(seed, "memories s", DRAWS, len(truth), model.rssm.stoch_size)
    images = torch.from_numpy(truth)
    decoded = draw(model, state.feature)
    assert decoded is not None

    def over_episodes(error: Tensor) -> dict[str, Any]:
        """(K, R) or (R,) → mean and interval over episodes."""
        by_row = error.double().reshape(-1, len(episodes), len(truth) // len(episodes))
        return mean_interval(by_row.transpose(0, 1).numpy(), picks)

    def at(level: float, form: Form) -> dict[str, Any]:
        disturbed = draw(model, disturb(state, level, form, noise_h, noise_s))
        assert disturbed is not None
        return {
            "sigma": level,
            "to_undisturbed": over_episodes(image_error(disturbed, decoded)),
            "to_truth": over_episodes(image_error(disturbed, images)),
        }

    shown = draw(model, disturb(state, sigma, "added", noise_h, noise_s))
    assert shown is not None
    numbers: dict[str, Any] = {
        "undisturbed_to_truth": over_episodes(image_error(decoded, images)),
        "shown": at(sigma, "added"),
        **{form: [at(level, form) for level in levels] for form in FORMS},
    }
    return Disturbed(decoded.numpy(), shown.numpy(), numbers)


def _states(subject: Subject, episodes: Sequence[Rows], rows: Sequence[NDArray[np.intp]], seed: int) -> State:
    """The filtered states (R, …) of the chosen rows."""
    model = subject.trained.world_model
    chosen = []
    for number, (episode, each) in enumerate(zip(episodes, rows, strict=True)):
        batch = Batch.from_rows(episode, torch.device("cpu")).map(lambda part: part[None])
        noise = subject.noise(seed, f"memories {number}", len(episode), 1, model.rssm.stoch_size)
        posterior, _ = observe(model, batch, noise)
        index = torch.from_numpy(each)
        chosen.append(State(*(part[index, 0] for part in posterior)))
    return State(*(torch.cat(parts) for parts in zip(*chosen, strict=True)))


def _picture(
    subjects: Sequence[Subject], results: Sequence[Disturbed], truth: NDArray[np.floating], episodes: int, sigma: float
) -> Sheet:
    """A line a held-out row; truth, then a block a model: decoded as it is, and with noise."""
    per_episode = len(truth) // episodes
    # One row of each episode in turn, each from another place in it.
    shown = [
        (line % episodes) * per_episode + (line * per_episode // _SHOWN_ROWS + 1) % per_episode
        for line in range(_SHOWN_ROWS)
    ]
    draws = _SHOWN_DRAWS[len(subjects)]
    left, top, apart = 12, 104, 34
    block = (1 + draws) * (_TILE + _GAP) - _GAP
    lefts = [left + _TILE + apart + index * (block + apart) for index in range(len(subjects))]
    sheet = Sheet(lefts[-1] + block + 12, top + len(shown) * (_TILE + _GAP) + 42)
    sheet.text(left + _TILE / 2, 80, "truth", 20, ha="center")
    for index, (subject, result, x) in enumerate(zip(subjects, results, lefts, strict=True)):
        colour = COLOURS[index]
        sheet.bar(x, 52, block, 4, colour)
        sheet.text(x, 28, _title(subject), 22, colour, weight="bold")
        sheet.text(x + _TILE / 2, 80, "decoded", 20, ha="center")
        sheet.text(x + _TILE + _GAP + 4, 80, f"decoded, noise of std {sigma:g} on h and s", 20)
        moved, wrong = (result.numbers["shown"][key]["mean"] for key in ("to_undisturbed", "to_truth"))
        floor = result.numbers["undisturbed_to_truth"]["mean"]
        bottom = top + len(shown) * (_TILE + _GAP) + 18
        sheet.text(x, bottom, f"noise moves the image by {moved:.1f} nats; to truth {floor:.1f} → {wrong:.1f}", 20)
        for line, row in enumerate(shown):
            y = top + line * (_TILE + _GAP)
            sheet.image(x, y, as_pixels(result.decoded[row]), _SCALE)
            for draw_index in range(draws):
                tile = as_pixels(result.shown[draw_index, row])
                sheet.image(x + (1 + draw_index) * (_TILE + _GAP), y, tile, _SCALE)
    for line, row in enumerate(shown):
        sheet.image(left, top + line * (_TILE + _GAP), as_pixels(truth[row]), _SCALE)
    return sheet


def _title(subject: Subject) -> str:
    """What the model is, in IDM's words, and where it comes from."""
    idm = subject.config.idm
    constrained = subject.config.algorithm == "idm" and idm.ablation != "without_both" and idm.rho > 0
    return f"{'R2S2' if constrained else 'RSSM'} · {subject.label}"


def _draw_errors(subjects: Sequence[Subject], results: Sequence[Disturbed], levels: Sequence[float], out: Path) -> None:
    marks: dict[Form, tuple[str, str]] = {"added": ("-", "noise on h and s"), "derived": ("--", "derived memory")}
    with look():
        figure = Figure(figsize=(7.6, 3.3), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, key, title in zip(
            axes, ("to_undisturbed", "to_truth"), ("from the undisturbed picture", "from the true image"), strict=True
        ):
            for index, (subject, result) in enumerate(zip(subjects, results, strict=True)):
                for form in FORMS:
                    line, meaning = marks[form]
                    values = [each[key] for each in result.numbers[form]]
                    colour = COLOURS[index]
                    axis.plot(
                        levels,
                        [value["mean"] for value in values],
                        line,
                        color=colour,
                        marker="o" if form == "added" else "s",
                        markersize=3.5,
                        linewidth=1.6,
                        label=f"{subject.label}: {meaning}",
                    )
                    if values[0]["low"] is not None:
                        low, high = ([value[end] for value in values] for end in ("low", "high"))
                        axis.fill_between(levels, low, high, color=colour, alpha=0.13, linewidth=0)
            axis.set_title(title)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_xticks(sorted(levels))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_xlabel("standard deviation of the noise")
        for index, result in enumerate(results):
            floor = result.numbers["undisturbed_to_truth"]["mean"]
            axes[1].axhline(floor, color=COLOURS[index], linewidth=0.9, linestyle=":")
            if not index:
                axes[1].annotate(
                    "undisturbed",
                    (min(levels), floor),
                    (0, -3),
                    textcoords="offset points",
                    va="top",
                    fontsize=7.5,
                    color=GREY,
                )
        axes[0].set_ylabel("distance, ½‖·‖² (nats an image)")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, labelcolor=TEXT)
        figure.savefig(out, dpi=160)
