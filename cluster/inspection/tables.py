"""An inspection's numbers for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table


def tables(results: Mapping[str, Any]) -> list[Table]:
    """A table for each part that was made."""
    parts = {"prediction": _prediction, "memories": _memories, "confidence": _confidence, "evaluator": _evaluator}
    return [make(results[name]) for name, make in parts.items() if name in results]


def _prediction(numbers: Mapping[str, Any]) -> Table:
    seen, foreseen = numbers["context"], numbers["predict"]
    table = _table(
        f"video: {seen} images seen, {foreseen} predicted from actions; ½‖ô − o‖² in nats an image",
        ("image",),
        ("mean", "first step", "last step"),
    )
    names = {
        "open_loop": "predicted from actions",
        "filtered": "reconstructed, image seen",
        "last_image": "last context image repeated",
    }
    for name, label in names.items():
        steps, whole = numbers["error_by_step"][name], numbers["error"][name]
        table.add_row(label, _with_interval(whole["mean"], whole, ".1f"), f"{steps[0]:.1f}", f"{steps[-1]:.1f}")
    return table


def _memories(numbers: Mapping[str, Any]) -> Table:
    runs = numbers["runs"]
    names = [f"{run['algorithm']} {Path(run['run']).name}" for run in runs]
    table = _table(
        f"noise on states, decoded: {numbers['rows']} rows, {numbers['draws']} draws; ½‖·‖² in nats an image",
        ("noise", "σ"),
        [f"{name}: {what}" for name in names for what in ("moved", "to truth")],
    )
    for form, label in (("added", "on h and s"), ("derived", "derived")):
        for place, sigma in enumerate(numbers["levels"]):
            cells = []
            for run in runs:
                moved, wrong = run[form][place]["to_undisturbed"], run[form][place]["to_truth"]
                cells += [_with_interval(moved["mean"], moved, ".1f"), f"{wrong['mean']:.1f}"]
            table.add_row(label, f"{sigma:g}", *cells)
    return table


def _confidence(numbers: Mapping[str, Any]) -> Table:
    table = _table(
        f"confidence against error: {numbers['starts']} starts, {numbers['horizon']} steps; Spearman's ρ "
        "(−1: sure is right)",
        ("ln density of", "error"),
        ("all steps", "trajectories", "first", "last"),
    )
    sure = {
        "sample_density": "the sample",
        "expected_density": "expectation",
        "posterior_density": "what came",
    }
    wrong = {"kl": "KL", "image_error": "image"}
    for found in numbers["spearman"]:
        whole, trajectory, steps = found["all_steps"], found["trajectory"], found["by_step"]
        table.add_row(
            sure[found["confidence"]],
            wrong[found["error"]],
            _with_interval(whole["rho"], whole, "+.2f"),
            _with_interval(trajectory["rho"], trajectory, "+.2f"),
            _number(steps[0]["rho"], "+.2f"),
            _number(steps[-1]["rho"], "+.2f"),
        )
    return table


def _evaluator(numbers: Mapping[str, Any]) -> Table:
    overshoot = numbers["overshoot"]
    shown = sorted({1, -(-overshoot // 2), overshoot})
    table = _table(
        f"trajectory evaluator, held out: transitions told right at overshoot steps 1 … {overshoot}",
        ("updates",),
        (*(f"step {step}" for step in shown), "KL"),
    )
    for found in numbers["checkpoints"]:
        cells = [found["accuracy"][step - 1]["both"] for step in shown]
        accuracies = [_with_interval(cell["mean"], cell, ".0%") for cell in cells]
        table.add_row(f"{found['updates']:,}", *accuracies, _with_interval(found["kl"]["mean"], found["kl"], ".2f"))
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in words:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _with_interval(value: float | None, found: Mapping[str, Any], form: str) -> str:
    if found["low"] is None:
        return _number(value, form)
    between = " … " if form.startswith("+") else "–"
    return f"{_number(value, form)} ({found['low']:{form}}{between}{found['high']:{form}})"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
