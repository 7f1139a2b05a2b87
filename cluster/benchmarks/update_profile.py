"""Where the time of an update goes, part by part: a table that people can read, the same as JSON, a Chrome trace."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from cluster.benchmarks.learner import noise_batches
from cluster.benchmarks.measure import machine, rate
from cluster.runtimes.roles import learner_threads
from common.config import Config
from learner.behaviors import dreamer, no_value
from learner.learner import Learner
from learner.networks import ScalarHead

PREFIX = "part: "
REST = "rest"
ABOUT = {
    "data": "the batch comes to the device",
    "noise": "all random numbers of the update",
    "encoder": "convolutions over the batch's images",
    "rssm": "the recurrence over the batch, prior and posterior",
    "decoder": "images drawn of all states, or what the objective has in their place",
    "imagination": "the recurrence ahead from all states, with the actor in it",
    "heads": "reward, value and other predictions, of real and imagined states",
    "losses": "densities, KL, returns, weights and metrics",
    "optimiser": "norms, clipping and Adam",
    REST: "Python and the autograd engine between all these",
}
PARTS = tuple(part for part in ABOUT if part != REST)


class Spent(NamedTuple):
    """What one part took, over all profiled updates.

    Attributes:
        forward: seconds.
        backward: seconds.
        operators: operator calls, forward and backward; an operator within another is not counted again.
    """

    forward: float = 0.0
    backward: float = 0.0
    operators: int = 0

    def plus(self, seconds: float, backward: bool, operators: int) -> Spent:
        """With one more event's time and operators."""
        more = (0.0, seconds) if backward else (seconds, 0.0)
        return Spent(self.forward + more[0], self.backward + more[1], self.operators + operators)


@contextmanager
def marked(learner: Learner) -> Iterator[None]:
    """Puts a named range around each part of this learner's update, from outside: without it there is nothing to pass.

    Ranges nest, and time counts for the innermost: heads within the losses are heads.
    """
    model = learner.world_model
    heads = [module for module in learner.modules.modules() if isinstance(module, ScalarHead)]
    marks: list[tuple[Any, str, str]] = [
        (learner, "draw_noise", "noise"),
        (learner, "losses", "losses"),
        (model.encoder, "forward", "encoder"),
        (model.rssm, "observe", "rssm"),
        (model.rssm, "follow", "rssm"),
        (model.objective, "loss", "decoder"),
        (model.objective, "draw", "decoder"),
        *((module, "imagine", "imagination") for module in (dreamer, no_value)),
        *((head, "forward", "heads") for head in heads),
        *((optimiser, "step", "optimiser") for optimiser in learner.optimisers.values()),
    ]
    with ExitStack() as stack:
        for owner, name, part in marks:
            stack.callback(_put, owner, name, vars(owner).get(name))
            setattr(owner, name, _within(part, getattr(owner, name)))
        stack.callback(_put, learner, "feed", learner.feed)
        setattr(learner, "feed", _MarkedFeed(learner.feed))  # noqa: B010 (mypy: it stands for the feed, and is none)
        yield


def _put(owner: Any, name: str, value: Any) -> None:
    """Undoes a mark: what was the owner's own comes back, and what is its class's shows again."""
    if value is None:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


class _MarkedFeed:
    """Batches, with a range around each."""

    def __init__(self, feed: Iterator[Any]) -> None:
        self._feed = feed

    def __next__(self) -> Any:
        with _range("data"):
            return next(self._feed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)


def _range(part: str) -> AbstractContextManager[Any]:
    return record_function(PREFIX + part)


def _within(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        with _range(part):
            return function(*args, **kwargs)

    return within


def spent_by_part(events: Iterable[FunctionEvent], on_device: bool = False) -> dict[str, Spent]:
    """Every event's own time, given to the innermost range around it.

    A backward event has no range around it: it counts for the part whose operator made its node in the graph, found by
    the number that both carry. Several forward events may carry one, as it is the next node's: the last one made it.

    Args:
        events: of a profile of marked updates.
        on_device: the time of the device's kernels, where they are launched, instead of the host's.
    """
    events = sorted(events, key=lambda event: event.time_range.start)
    made_by: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and _backward_of(event) is None:
            made_by[event.sequence_nr] = _range_of(event) or REST
    spent: dict[str, Spent] = defaultdict(Spent)
    for event in events:
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue  # a kernel's time is its launcher's too
        node = _backward_of(event)
        part = (made_by.get(node.sequence_nr, REST) if node is not None else _range_of(event)) or REST
        seconds = (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6
        spent[part] = spent[part].plus(seconds, node is not None, int(_is_outermost_operator(event)))
    return spent


def _is_backward(event: FunctionEvent) -> bool:
    return event.name.startswith("autograd::engine::evaluate_function")


def _ancestors(event: FunctionEvent) -> Iterator[FunctionEvent]:
    """The event, and what it lies in, from the inside out."""
    at: FunctionEvent | None = event
    while at is not None:
        yield at
        at = at.cpu_parent


def _range_of(event: FunctionEvent) -> str | None:
    for at in _ancestors(event):
        if at.name.startswith(PREFIX):
            return at.name.removeprefix(PREFIX)
    return None


def _backward_of(event: FunctionEvent) -> FunctionEvent | None:
    return next((at for at in _ancestors(event) if _is_backward(at)), None)


def _is_outermost_operator(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    return event.name.startswith("aten::") and (parent is None or not parent.name.startswith("aten::"))


def measure(config: Config, action_size: int, device: str, updates: int, folder: Path) -> dict[str, Any]:
    """Profiles `updates` updates as they are trained with, part by part; writes profile.md, profile.json and the trace.

    Operators are launched one by one: in a compiled or captured update there are no parts to tell apart.
    """
    torch.set_num_threads(learner_threads(config))
    learner = Learner(replace(config, compile="none"), action_size, noise_batches(config, action_size), device)
    learner.update(1)
    plain_seconds = 1 / rate(lambda: learner.update(updates), 1) / updates
    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with marked(learner), profile(activities=activities) as profiler:
        learner.update(updates)
    spent = spent_by_part(profiler.events(), on_device=on_gpu)
    total = sum(each.forward + each.backward for each in spent.values())
    rows: list[dict[str, Any]] = []
    for part in (*PARTS, REST):
        forward, backward, operators = spent.get(part, Spent())
        rows.append(
            {
                "part": part,
                "forward_seconds": forward / updates,
                "backward_seconds": backward / updates,
                "seconds": (forward + backward) / updates,
                "share": (forward + backward) / total,
                "operators": round(operators / updates),
            }
        )
    figures: dict[str, Any] = {
        "parts": sorted(rows, key=lambda row: -row["seconds"]),
        "seconds_per_update": total / updates,
        "seconds_per_update_without_profiler": plain_seconds,
        "operators_per_update": sum(row["operators"] for row in rows),
        "updates": updates,
        "time_of": "device" if on_gpu else "host",
        "device": device,
        "threads": torch.get_num_threads(),
        "preset": config.preset,
        "algorithm": config.algorithm,
        "objective": config.objective,
        "machine": machine(),
    }
    (folder / "profile.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "profile.md").write_text(as_markdown(figures))
    profiler.export_chrome_trace(str(folder / "trace.json.gz"))
    return figures


def as_markdown(figures: dict[str, Any]) -> str:
    """The figures as a page with a table, dearest part first, whose columns line up as plain text too."""
    head = ("part", "forward ms", "backward ms", "both ms", "share", "operators", "what it is")
    body = [
        (
            row["part"],
            f"{1e3 * row['forward_seconds']:,.1f}",
            f"{1e3 * row['backward_seconds']:,.1f}",
            f"{1e3 * row['seconds']:,.1f}",
            f"{row['share']:.1%}",
            f"{row['operators']:,}",
            ABOUT[row["part"]],
        )
        for row in figures["parts"]
    ]
    total = (
        "all",
        f"{1e3 * sum(row['forward_seconds'] for row in figures['parts']):,.1f}",
        f"{1e3 * sum(row['backward_seconds'] for row in figures['parts']):,.1f}",
        f"{1e3 * figures['seconds_per_update']:,.1f}",
        "",
        f"{figures['operators_per_update']:,}",
        f"without the profiler {1e3 * figures['seconds_per_update_without_profiler']:,.1f} ms",
    )
    lines = [head, *body, total]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    is_number = [0 < column < len(head) - 1 for column in range(len(head))]

    def row_of(cells: tuple[str, ...]) -> str:
        padded = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, is_number, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width + 1) + ":" if number else "-" * (width + 2)
        for width, number in zip(widths, is_number, strict=True)
    ]
    where = figures["machine"]
    page = [
        f"# One update of {figures['algorithm']}, preset {figures['preset']}, part by part",
        "",
        f"Mean of {figures['updates']} updates on {figures['device']}, {figures['threads']} CPU threads, "
        f"{where['gpu'] or where['cpu']}, torch {where['torch']}. Time of the {figures['time_of']}; the profiler's own "
        "share is in it, so look at the proportions. trace.json.gz beside this page opens in chrome://tracing or "
        "ui.perfetto.dev.",
        "",
        row_of(head),
        f"|{'|'.join(rule)}|",
        *(row_of(line) for line in (*body, total)),
        "",
    ]
    return "\n".join(page)
