"""The report: report.md for people, report.json with every number, report.png. No clock and no path enters them, so the
same finished runs give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cluster.published import PublishedScore, published_scores
from cluster.studies.figure import draw_study
from cluster.studies.grid import Cell
from cluster.studies.scores import CONFIDENCE, RESAMPLES, Aggregate, Entry, Place, Results, read_results
from cluster.studies.study import Study
from cluster.validation import leaves
from common.durable import replace_durably
from common.jsonl import as_json
from common.presets import PRESETS

_OF_THE_MACHINE = {
    "device",
    "ray_address",
    "environment.gl",
    "environment.hang_seconds",
    "training.learner_threads",
}
_NOTHING = "–"


def write_report(study: Study, grid: list[Cell], out: Path) -> Path:
    """Writes the report of what is there; returns the path of report.md.

    Raises:
        UserError: a run folder holds another run than its cell's.
    """
    results = read_results(study, grid, out)
    published = _published(study, results)
    drawn = draw_study(study, grid, results, out, out / "report.png")
    replace_durably(out / "report.json", (as_json(as_record(study, results, published), indent=1) + "\n").encode())
    path = out / "report.md"
    replace_durably(path, as_markdown(study, grid, results, published, drawn).encode())
    return path


def as_record(
    study: Study, results: Results, published: dict[tuple[int, float, str], list[PublishedScore]]
) -> dict[str, Any]:
    """Every number of the report, as JSON values."""
    axis = study.axis.label or ", ".join(study.axis.fields)
    return {
        "title": study.title,
        "source": study.source,
        "axis": axis or None,
        "unfinished": results.unfinished,
        "scores": [
            {**score.place._asdict(), "seed": score.seed, "evaluated_at": score.evaluated_at, "return": score.value}
            for score in results.scores
        ],
        "entries": [{**place._asdict(), **entry._asdict()} for place, entry in results.entries.items()],
        "interquartile_means": [
            {
                "env_steps": steps,
                "rotation": rotation,
                "x": x,
                "variant": variant,
                **aggregate._asdict(),
                "tasks": results.aggregated_tasks[steps, rotation, x],
                "scaled": results.scaled,
            }
            for (steps, rotation, x, variant), aggregate in results.aggregates.items()
        ],
        "published": [
            {"env_steps": steps, "rotation": rotation, "task": task, **score._asdict()}
            for (steps, rotation, task), scores in published.items()
            for score in scores
        ],
    }


def as_markdown(
    study: Study,
    grid: list[Cell],
    results: Results,
    published: dict[tuple[int, float, str], list[PublishedScore]],
    drawn: bool,
) -> str:
    """The report as Markdown.

    Args:
        study: the study.
        grid: its cells.
        results: their numbers.
        published: what papers tell, by step count, angle and task.
        drawn: whether there is a figure.
    """
    parts = [f"# {study.title}", study.source, _what_ran(study, grid), _unfinished(results, grid), _how_to_read(study)]
    for rotation in results.rotations:
        for steps in results.env_steps:
            parts += [f"## {_heading(steps, rotation)}", _table(study, results, published, steps, rotation)]
    parts += ["## All tasks together", _aggregates(study, grid, results)]
    if drawn:
        over = study.axis.label or ", ".join(study.axis.fields)
        parts += [f"## {'Returns over ' + over if over else 'Learning curves'}", "![returns](report.png)"]
    if study.then:
        parts += ["## Then", study.then.strip()]
    parts += [
        "## Again",
        "`study.yaml` beside this report is the whole study; this repeats it elsewhere:",
        "```sh\ndreamfleet study study.yaml --out another_folder\n```",
        "Every run below `runs/` is an ordinary run folder (`dreamfleet evaluate`, `dreamfleet plot`); `report.json` "
        "holds all numbers, seed by seed.",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _published(study: Study, results: Results) -> dict[tuple[int, float, str], list[PublishedScore]]:
    paper = study.report.published
    if paper == "none":
        return {}
    return {
        (steps, rotation, task): scores
        for steps in results.env_steps
        for rotation in results.rotations
        for task in study.tasks
        if (scores := published_scores(paper, task, rotation, steps))
    }


def _what_ran(study: Study, grid: list[Cell]) -> str:
    """Preset, sizes of the grid, and what the configuration changes, for all runs and for each variant."""
    changes = {
        variant: [_changes(study, cell) for cell in grid if cell.variant == variant] for variant in study.variants
    }
    shared = _common([change for each in changes.values() for change in each])
    steps = sorted({cell.config.env_steps for cell in grid})
    runtimes = sorted({cell.config.runtime for cell in grid})
    axis = f" × {len(study.axis.values)} values of {_axis(study)}" if study.axis.values else ""
    lines = [
        f"Preset `{study.preset}`; {_count(study.tasks, 'task')} × {_count(study.variants, 'variant')}{axis} × "
        f"{_count(study.seeds, 'seed')} ({', '.join(map(str, study.seeds))}) = {_count(grid, 'run')} of "
        f"{' or '.join(f'{each:,}' for each in steps)} environment steps, runtime {' and '.join(runtimes)}.",
        f"All runs change in the preset: {_listed(shared)}." if shared else "",
        "",
        *_rows(
            ["variant", "changes in the preset"],
            ([f"`{variant}`", _listed(_common(each) - shared) or "nothing"] for variant, each in changes.items()),
            left=2,
        ),
    ]
    return "\n".join(lines)


def _changes(study: Study, cell: Cell) -> set[tuple[str, str]]:
    preset = dict(leaves(PRESETS[study.preset]()))
    own = {"task", "seed", "preset", "env_steps", "runtime", *study.axis.fields} | _OF_THE_MACHINE
    return {(name, _value(value)) for name, value in leaves(cell.config) if name not in own and value != preset[name]}


def _common(changes: Sequence[set[tuple[str, str]]]) -> set[tuple[str, str]]:
    return set.intersection(*changes)


def _listed(changes: set[tuple[str, str]]) -> str:
    return ", ".join(f"`{name}: {value}`" for name, value in sorted(changes))


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unfinished(results: Results, grid: list[Cell]) -> str:
    if not results.unfinished:
        return ""
    named = ", ".join(f"`{name}`" for name in results.unfinished)
    return f"**Incomplete: {len(results.unfinished)} of {_count(grid, 'run')} have not finished:** {named}."


def _how_to_read(study: Study) -> str:
    published = (
        " Columns in italics are published: means over the papers' seeds." if study.report.published != "none" else ""
    )
    return (
        "Entries are means ± standard deviations (n − 1) over seeds of evaluation returns without exploration noise; a "
        "seed's return is the mean of its evaluation nearest to the step count. Where not all seeds have one, their "
        f"number stands in brackets. Our best is bold.{published}"
    )


def _heading(steps: int, rotation: float) -> str:
    return f"{steps:,} environment steps" + (f", images rotated by up to ±{rotation:g}°" if rotation else "")


def _table(
    study: Study,
    results: Results,
    published: dict[tuple[int, float, str], list[PublishedScore]],
    steps: int,
    rotation: float,
) -> str:
    agents = list(
        dict.fromkeys(score.agent for task in study.tasks for score in published.get((steps, rotation, task), ()))
    )
    rows = []
    for task in study.tasks:
        theirs = {score.agent: score for score in published.get((steps, rotation, task), ())}
        for x in study.axis.values or (None,):
            ours = [results.entries.get(Place(steps, rotation, task, x, variant)) for variant in study.variants]
            rows.append(
                [
                    task,
                    *([] if x is None else [f"{x:g}"]),
                    *_best_bold(ours, len(study.seeds)),
                    *(_score(theirs[agent]) if agent in theirs else _NOTHING for agent in agents),
                ]
            )
    head = ["task", *([_axis(study)] if study.axis.values else []), *study.variants]
    return "\n".join(_rows([*head, *(f"*{agent}*" for agent in agents)], rows))


def _best_bold(entries: Sequence[Entry | None], seeds: int) -> list[str]:
    means = [entry.mean for entry in entries if entry is not None]
    best = max(means) if len(means) > 1 else None
    return [_entry(entry, seeds, entry is not None and entry.mean == best) for entry in entries]


def _entry(entry: Entry | None, seeds: int, best: bool) -> str:
    if entry is None:
        return _NOTHING
    mean = f"**{entry.mean:.1f}**" if best else f"{entry.mean:.1f}"
    deviation = f" ± {entry.std:.1f}" if entry.std is not None else ""
    return mean + deviation + (f" ({entry.seeds} of {seeds})" if entry.seeds < seeds else "")


def _score(score: PublishedScore) -> str:
    return f"{score.mean:.1f}" + (f" ± {score.std:.1f}" if score.std is not None else "")


def _aggregates(study: Study, grid: list[Cell], results: Results) -> str:
    """Interquartile means: a row an angle, step count and axis value."""
    limit = grid[0].config.environment.time_limit
    what = f"returns / {limit:,} (the highest there can be is 1)" if results.scaled else "returns as they are"
    rows = []
    for rotation in results.rotations:
        for steps in results.env_steps:
            for x in study.axis.values or (None,):
                ours = [results.aggregates.get((steps, rotation, x, variant)) for variant in study.variants]
                tasks = len(results.aggregated_tasks[steps, rotation, x])
                at = [] if x is None else [f"{x:g}"]
                rows.append([_heading(steps, rotation), *at, str(tasks), *map(_interval(results.scaled), ours)])
    head = ["at", *([_axis(study)] if study.axis.values else []), "tasks", *study.variants]
    return "\n".join(
        (
            f"Interquartile means over tasks and seeds of {what}, with {CONFIDENCE:.0%} intervals from "
            f"{RESAMPLES:,} bootstrap samples of seeds within tasks (Agarwal et al., NeurIPS 2021). Only tasks for "
            "which all variants that have begun have a return are in; an interval needs two seeds of each.",
            "",
            *_rows(head, rows),
        )
    )


def _interval(scaled: bool) -> Callable[[Aggregate | None], str]:
    digits = 3 if scaled else 1

    def text(aggregate: Aggregate | None) -> str:
        if aggregate is None:
            return _NOTHING
        if aggregate.low is None or aggregate.high is None:
            return f"{aggregate.iqm:.{digits}f}"
        return f"{aggregate.iqm:.{digits}f} [{aggregate.low:.{digits}f}, {aggregate.high:.{digits}f}]"

    return text


def _axis(study: Study) -> str:
    return study.axis.label or ", ".join(study.axis.fields)


def _count(things: Sequence[object] | dict[str, Any], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table, all but the first columns aligned right."""
    bars = ["---" if index < left else "---:" for index in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, bars, *rows)]
