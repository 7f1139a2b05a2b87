"""The study's figure: learning curves, or returns over the study's axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.curves import Curve, CurveKey, read_curves
from cluster.plots import draw_curves
from cluster.studies.grid import Cell
from cluster.studies.scores import Results, Score
from cluster.studies.study import Study
from common.run_folder import RunFolder


def draw_study(study: Study, grid: list[Cell], results: Results, out: Path, picture: Path) -> bool:
    """Draws what is there, a panel a task and angle, a colour a variant; false when there is nothing to draw.

    Args:
        study: the study.
        grid: its cells.
        results: their numbers.
        out: the study's folder.
        picture: the figure to write.
    """
    if study.axis.values:
        curves, label = _over_axis(study, grid, results), study.axis.label or ", ".join(study.axis.fields)
    else:
        runs = {cell.folder(out): cell.variant for cell in grid if RunFolder(cell.folder(out)).evaluations()}
        curves, label = read_curves(runs, runs) if runs else [], "environment steps"
    curves = [curve for curve in curves if curve.key.rotation in results.rotations]
    if not curves:
        picture.unlink(missing_ok=True)
        return False
    draw_curves(curves, picture, label, published=study.report.published != "none")
    return True


def _over_axis(study: Study, grid: list[Cell], results: Results) -> list[Curve]:
    """A curve a task, angle and variant, of the scores at the last step count."""
    algorithms = {cell.variant: cell.config for cell in grid}
    last = results.env_steps[-1]
    curves = []
    for task in study.tasks:
        for rotation in results.rotations:
            for variant in study.variants:
                scores = [
                    score
                    for score in results.scores
                    if score.place[:3] == (last, rotation, task) and score.place.variant == variant
                ]
                if scores:
                    config = algorithms[variant]
                    key = CurveKey(task, config.algorithm, config.objective, config.preset, rotation, variant)
                    curves.append(_joined(key, scores))
    return curves


def _joined(key: CurveKey, scores: list[Score]) -> Curve:
    values = sorted({score.place.x for score in scores if score.place.x is not None})
    at = [np.array([score.value for score in scores if score.place.x == x]) for x in values]  # (seeds,) a value
    return Curve(
        key=key,
        runs=max(map(len, at)),
        seeds=len({score.seed for score in scores}),
        env_steps=np.array(values, np.float64),
        mean=np.array([each.mean() for each in at]),
        low=np.array([each.min() for each in at]),
        high=np.array([each.max() for each in at]),
        training=np.empty((2, 0)),
    )
