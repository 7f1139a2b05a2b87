"""Open-loop video prediction: a few frames of context, then actions alone (Dreamer, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from actors.video import frames_per_second, write_video
from cluster.inspection.sheet import IMAGE, Sheet, as_pixels
from cluster.inspection.statistics import mean_interval
from cluster.inspection.subject import Subject
from cluster.look import COLOURS, GREY, TEXT, look
from common.sequence import Rows
from learner.batch import Batch
from learner.foresight import draw, image_error, look_then_foresee, observe

_WINDOWS = 5  # of one episode, spread over it
_SHOWN_EPISODES = 2
_FILMED_EPISODES = 3
_PREDICTED_COLUMNS = 9
_LINES = ("truth", "model", "difference")
_SCALE = 2
_TILE = _SCALE * IMAGE
_GAP = 4
_CONTEXT, _PREDICTED = GREY, COLOURS[0]


class _Film(NamedTuple):
    """One window: truth, model and difference, uint8 (L, 64, 64, 3) each."""

    truth: NDArray[np.uint8]
    model: NDArray[np.uint8]
    difference: NDArray[np.uint8]


def inspect_prediction(
    subject: Subject,
    episodes: Sequence[Rows],
    context: int,
    predict: int,
    seed: int,
    picks: NDArray[np.intp],
    out: Path,
) -> dict[str, Any]:
    """Predicts, measures, and writes prediction.png, prediction.gif and prediction_error.png.

    Args:
        subject: predicts.
        episodes: held-out ones.
        context: rows that the model sees.
        predict: rows after them that it predicts from their actions; fewer where an episode has no more.
        seed: of the states' samples.
        picks: resamples of the episodes.
        out: the folder.

    Returns:
        Numbers as JSON values, in nats an image (½‖·‖²).
    """
    predict = min(predict, min(map(len, episodes)) - context)
    length = context + predict
    windows = [
        episode[first : first + length] for episode in episodes for first in _window_starts(len(episode), length)
    ]
    stacked = Rows(*(np.stack(parts) for parts in zip(*(vars(window).values() for window in windows), strict=True)))
    batch = Batch.from_rows(stacked, torch.device("cpu"))
    model = subject.trained.world_model
    noise = subject.noise(seed, "prediction", length, len(windows), model.rssm.stoch_size)
    foreseen = draw(model, look_then_foresee(model, batch, context, noise).feature)  # (L, W, 64, 64, 3)
    filtered = draw(model, observe(model, batch, noise)[0].feature)
    assert foreseen is not None
    assert filtered is not None
    truth = batch.image.transpose(0, 1).float() / 255 - 0.5  # (L, W, 64, 64, 3)
    last_seen = truth[context - 1].expand_as(truth)
    by_episode = (predict, len(episodes), -1)
    errors = {
        name: image_error(drawn[context:], truth[context:]).reshape(by_episode).double().numpy()
        for name, drawn in (("open_loop", foreseen), ("filtered", filtered), ("last_image", last_seen))
    }  # (P, E, windows an episode)

    per_episode = len(windows) // len(episodes)
    films = [
        _film(truth[:, index].numpy(), foreseen[:, index].numpy())
        for index in range(per_episode // 2, len(windows), per_episode)
    ]
    _strip(films[:_SHOWN_EPISODES], context, subject).save(out / "prediction.png")
    frames = _frames(films[:_FILMED_EPISODES], context)
    write_video(out / "prediction.gif", frames, frames_per_second(subject.config.environment), scale=1)
    _draw_errors(errors, subject, out / "prediction_error.png")
    return {
        "context": context,
        "predict": predict,
        "windows": len(windows),
        "error_by_step": {name: error.mean((1, 2)).tolist() for name, error in errors.items()},
        "error": {name: mean_interval(error.swapaxes(0, 1), picks) for name, error in errors.items()},
        "files": ["prediction.png", "prediction.gif", "prediction_error.png"],
    }


def _window_starts(rows: int, length: int) -> NDArray[np.intp]:
    """Always as many, spread from the episode's first possible window to its last."""
    return np.rint(np.linspace(0, rows - length, _WINDOWS)).astype(np.intp)


def _film(truth: NDArray[np.floating], model: NDArray[np.floating]) -> _Film:
    return _Film(as_pixels(truth), as_pixels(model), as_pixels((model - truth) / 2))


def _strip(films: Sequence[_Film], context: int, subject: Subject) -> Sheet:
    """Time to the right; under each other the episodes, three lines each."""
    length = len(films[0].truth)
    seen = sorted({0, context - 1})
    predicted = [
        context - 1 + step
        for step in sorted({-(-(length - context) * k // _PREDICTED_COLUMNS) for k in range(1, _PREDICTED_COLUMNS + 1)})
        if step > 0
    ]
    left, top, apart, block_gap = 132, 92, 18, 26
    lefts = {row: left + column * (_TILE + _GAP) for column, row in enumerate(seen)}
    begin = left + len(seen) * (_TILE + _GAP) + apart
    lefts |= {row: begin + column * (_TILE + _GAP) for column, row in enumerate(predicted)}
    block = 3 * (_TILE + _GAP) + block_gap
    right = max(*lefts.values(), begin + 2 * _TILE) + _TILE  # room for the words above
    sheet = Sheet(right + 12, top + len(films) * block - block_gap + 12)
    for rows, name, colour in ((seen, "context", _CONTEXT), (predicted, "predicted from actions alone", _PREDICTED)):
        if rows:
            start = lefts[rows[0]]
            sheet.bar(start, 40, lefts[rows[-1]] + _TILE - start, 4, colour)
            sheet.text(start, 22, name, 22, colour, weight="bold")
    for row, x in lefts.items():
        step = f"image {row + 1}" if row < context else f"+{row - context + 1}"
        sheet.text(x + _TILE / 2, 68, step, 20, ha="center")
    for index, film in enumerate(films):
        for line, (name, images) in enumerate(zip(_LINES, film, strict=True)):
            y = top + index * block + line * (_TILE + _GAP)
            sheet.text(left - 14, y + _TILE / 2, name, 21, ha="right")
            for row, x in lefts.items():
                sheet.image(x, y, images[row], _SCALE)
    return sheet


def _frames(films: Sequence[_Film], context: int) -> NDArray[np.uint8]:
    """The film's frames: a column an episode; the last one stays for a second or so."""
    left, top = 118, 46
    length = len(films[0].truth)
    frames = []
    for row in range(length):
        sheet = Sheet(left + max(len(films), 2) * (_TILE + _GAP) + 8, top + 3 * (_TILE + _GAP) + 8)
        if row < context:
            sheet.text(left, 22, f"context, image {row + 1} of {context}", 18, _CONTEXT, weight="bold")
        else:
            step = f"predicted, step {row - context + 1} of {length - context}"
            sheet.text(left, 22, step, 18, _PREDICTED, weight="bold")
        for line, name in enumerate(_LINES):
            y = top + line * (_TILE + _GAP)
            sheet.text(left - 10, y + _TILE / 2, name, 18, ha="right")
            for column, film in enumerate(films):
                sheet.image(left + column * (_TILE + _GAP), y, film[line][row], _SCALE)
        frames.append(sheet.pixels())
    return np.stack([*frames, *[frames[-1]] * 15])


def _draw_errors(errors: dict[str, NDArray[np.floating]], subject: Subject, out: Path) -> None:
    looks = {
        "open_loop": ("predicted from actions alone", COLOURS[0]),
        "filtered": ("reconstructed, image seen", COLOURS[2]),
        "last_image": ("last context image repeated", GREY),
    }
    with look():
        figure = Figure(figsize=(6.6, 3.6), layout="constrained")
        axis = figure.subplots()
        for name, error in errors.items():
            label, colour = looks[name]
            steps = 1 + np.arange(len(error))
            episodes = error.mean(2)  # (P, E)
            axis.plot(steps, episodes.mean(1), color=colour, linewidth=1.7, label=label)
            axis.fill_between(steps, episodes.min(1), episodes.max(1), color=colour, alpha=0.13, linewidth=0)
        axis.set_ylim(bottom=0)
        axis.set_xlim(1, len(steps) if len(steps) > 1 else 2)
        axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axis.set_xlabel("steps after the last context image")
        axis.set_ylabel("½‖ô − o‖² (nats an image)")
        axis.set_title(f"{subject.config.task.rpartition(':')[2]}, {subject.label}")
        handles, names = axis.get_legend_handles_labels()
        band = Patch(color=GREY, alpha=0.2, linewidth=0)
        figure.legend(
            [*handles, band],
            [*names, "lowest to highest episode"],
            loc="outside lower center",
            ncols=2,
            frameon=False,
            labelcolor=TEXT,
        )
        figure.savefig(out, dpi=160)
