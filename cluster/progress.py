"""What a run is doing, at a glance: a live panel in a terminal, a plain line now and then everywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.box import ROUNDED
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.waiting import Waiting
from common.config import Config

_WAITING_STYLES: dict[str, str] = {"nobody waits": "green", "prefill": "cyan"}


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment.

    Attributes:
        env_steps: environment steps so far.
        updates: learner updates so far.
        env_steps_per_second: recent speed of the actors.
        updates_per_second: recent speed of the learner.
        last_return: return of the newest training episode.
        best_return: best return of a training episode.
        last_evaluation: mean return of the newest evaluation.
        replay_env_steps: environment steps that replay holds.
        replay_capacity: environment steps that replay can hold.
        waiting: who is held back by the rate limiter.
        weights_version: the version that was published last; 0 acts at random.
        elapsed_seconds: since the run began.
        seconds_left: estimate, none before there is one.
        restarts: roles restarted after a failure.
        model_loss: of the newest logged updates.
        kl: of the newest logged updates, in nats.
    """

    env_steps: int
    updates: int
    env_steps_per_second: float
    updates_per_second: float
    last_return: float | None
    best_return: float | None
    last_evaluation: float | None
    replay_env_steps: int
    replay_capacity: int
    waiting: Waiting
    weights_version: int
    elapsed_seconds: float
    seconds_left: float | None
    restarts: int = 0
    model_loss: float | None = None
    kl: float | None = None


class Progress:
    """Shows snapshots of one run while it is entered as a context.

    Args:
        config: names the run.
        total_env_steps: where it ends.
        console: where to print; standard output if none. A terminal gets the panel, anything else plain lines.
        plain_seconds: seconds of the run between two plain lines.
    """

    def __init__(
        self, config: Config, total_env_steps: int, console: Console | None = None, plain_seconds: float = 10.0
    ) -> None:
        self._title = " · ".join((config.task, config.algorithm, config.objective, f"seed {config.seed}"))
        self._total = total_env_steps
        self._console = Console() if console is None else console
        self._plain_seconds = plain_seconds
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._snapshot: Snapshot | None = None
        self._printed: Snapshot | None = None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        else:
            self._print(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._snapshot is not None and self._snapshot != self._printed:
            self._print(plain_line(self._snapshot, self._total))

    def update(self, snapshot: Snapshot) -> None:
        """Shows the newest state; cheap enough to be called many times a second."""
        self._snapshot = snapshot
        if self._live is not None:
            self._live.update(panel(snapshot, self._title, self._total))
        elif self._printed is None or snapshot.elapsed_seconds - self._printed.elapsed_seconds >= self._plain_seconds:
            self._print(plain_line(snapshot, self._total))
            self._printed = snapshot

    def message(self, text: str) -> None:
        """Prints an event, such as an evaluation or a restart, on a line of its own that stays."""
        elapsed = duration(self._snapshot.elapsed_seconds if self._snapshot is not None else 0)
        self._print(Text.assemble((f"{elapsed:>8}  ", "dim"), text))

    def _print(self, line: str | Text) -> None:
        # A Text, because a plain string would have its square brackets and :names: interpreted.
        self._console.print(Text.assemble(line), soft_wrap=True)


def plain_line(snapshot: Snapshot, total_env_steps: int) -> str:
    """One line whose columns stay in place from line to line."""
    left = "" if snapshot.seconds_left is None else f"{duration(snapshot.seconds_left)} left"
    columns = [
        f"{duration(snapshot.elapsed_seconds):>8}",
        f"{_fraction(snapshot.env_steps, total_env_steps):6.1%}",
        f"{snapshot.env_steps:>10,} steps {snapshot.env_steps_per_second:>6,.0f}/s",
        f"{snapshot.updates:>8,} updates {snapshot.updates_per_second:>6,.1f}/s",
        f"return {_number(snapshot.last_return):>7}",
        f"eval {_number(snapshot.last_evaluation):>7}",
        f"replay {_fraction(snapshot.replay_env_steps, snapshot.replay_capacity):4.0%}",
        f"{left:>13}",
        snapshot.waiting,
    ]
    return "  ".join(columns)


def panel(snapshot: Snapshot, title: str, total_env_steps: int) -> RenderableType:
    """The live panel: how far, how good, how fast, and in its lower edge who waits for whom."""
    return Panel(
        Group(_how_far(snapshot, total_env_steps), "", _figures(snapshot)),
        box=ROUNDED,
        border_style="grey42",
        title=Text(title, style="bold"),
        title_align="left",
        subtitle=_state(snapshot),
        subtitle_align="right",
        padding=(0, 1),
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}"


def _how_far(snapshot: Snapshot, total_env_steps: int) -> Table:
    bar = ProgressBar(
        total=max(1, total_env_steps),
        completed=snapshot.env_steps,
        style="grey30",
        complete_style="cyan",
        finished_style="green",
    )
    position = Text.assemble(
        (f"{_fraction(snapshot.env_steps, total_env_steps):.1%}", "bold"),
        f"  {snapshot.env_steps:,}",
        (f" of {total_env_steps:,} steps", "dim"),
    )
    if snapshot.seconds_left is not None:
        position.append_text(Text.assemble("  ", duration(snapshot.seconds_left), (" left", "dim")))
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column(ratio=1, min_width=8)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(bar, position)
    return grid


def _figures(snapshot: Snapshot) -> Table:
    """A row a subject, three figures a row: the figure right-aligned, its name dim beside it."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", min_width=7, no_wrap=True)
    for _ in range(3):
        grid.add_column(justify="right", min_width=9, no_wrap=True)
        grid.add_column(style="dim", min_width=10, no_wrap=True)
    full = f"{_fraction(snapshot.replay_env_steps, snapshot.replay_capacity):.0%}"
    evaluation = Text(_number(snapshot.last_evaluation), style="bold green")
    weights = f"v{snapshot.weights_version}" if snapshot.weights_version else "random"
    restarts = Text(str(snapshot.restarts), style="yellow" if snapshot.restarts else "")
    steps, updates = f"{snapshot.env_steps_per_second:,.0f}", f"{snapshot.updates_per_second:,.1f}"
    last, best = _number(snapshot.last_return), _number(snapshot.best_return)
    loss, kl = _number(snapshot.model_loss), _number(snapshot.kl, digits=2)
    grid.add_row("return", last, "last", best, "best", evaluation, "evaluation")
    grid.add_row("speed", steps, "steps/s", updates, "updates/s", f"{snapshot.updates:,}", "updates")
    grid.add_row("model", loss, "loss", kl, "KL (nats)", weights, "weights")
    grid.add_row("replay", f"{snapshot.replay_env_steps:,}", "steps held", full, "full", restarts, "restarts")
    return grid


def _state(snapshot: Snapshot) -> Text:
    waiting = (snapshot.waiting, _WAITING_STYLES.get(snapshot.waiting, "yellow"))
    return Text.assemble(waiting, (f" · {duration(snapshot.elapsed_seconds)} elapsed", "dim"))


def _fraction(part: int, whole: int) -> float:
    return min(1.0, part / whole) if whole else 1.0


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
