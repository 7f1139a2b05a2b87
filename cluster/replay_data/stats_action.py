"""`dreamfleet replay stats`: what is held."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from cluster.flags import parse
from cluster.replay_data.opening import open_data
from common.errors import UserError
from common.jsonl import as_json
from replay_service.codec import CodecError
from replay_service.source import Facts, Source
from replay_service.statistics import Holding, Spread, episode_returns, holding, spread, total
from replay_service.stock import episode_parts

SHOWN_SHARDS = 8
BAR = 40


@dataclass(frozen=True)
class StatsArguments:
    """Counts what a replay holds, and draws its episodes' lengths and returns. A run that goes on is not disturbed."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Run folder, dataset, or redis://host:port#PREFIX."""
    batch_length: int = 0
    """Rows of the windows that are counted; 0: the run's own, or 50 where no run tells."""
    action_repeat: int = 0
    """Environment steps a row, for redis://host:port#PREFIX, which does not tell."""
    redis_password_file: str = ""
    """File with the password of the Redis servers, instead of DREAMFLEET_REDIS_PASSWORD."""
    json: bool = False
    """Print JSON."""


def main(args: Sequence[str]) -> int:
    """Runs the action; returns the exit code."""
    arguments = parse(StatsArguments, "replay stats", args)
    if not 0 <= arguments.batch_length <= 10_000:
        raise UserError(f"--batch-length must be between 1 and 10000, not {arguments.batch_length}")
    opened = open_data(arguments.data, arguments.redis_password_file, action_repeat=arguments.action_repeat)
    length = arguments.batch_length or (opened.config.training.batch_length if opened.config is not None else 50)
    try:
        found = statistics(opened.source, length)
    except CodecError as error:
        raise UserError(f"{error}; dreamfleet replay verify names every damaged chunk") from error
    finally:
        opened.source.close()
    if arguments.json:
        print(as_json(found.as_json()))
    else:
        found.show(arguments.data)
    return 0


@dataclass(frozen=True)
class Statistics:
    """All that the action tells.

    Attributes:
        facts: what the data is of.
        batch_length: L, rows of the windows that are counted.
        shards: what each holds.
        episode_env_steps: environment steps of the episodes that are held whole.
        episode_return: sums of rewards of these.
    """

    facts: Facts
    batch_length: int
    shards: list[Holding]
    episode_env_steps: Spread | None
    episode_return: Spread | None

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        body = dataclasses.asdict(self)
        return {**body.pop("facts"), **body, "total": dataclasses.asdict(total(self.shards))}

    def show(self, name: str) -> None:
        """As tables."""
        console = Console()
        facts = self.facts
        about = (
            f"{facts.task or 'unknown task'}, actions of size {facts.action_size} repeated {facts.action_repeat} times"
        )
        console.print(f"{name}: {about}", soft_wrap=True, highlight=False, markup=False)
        console.print(self._table())
        for title, found in (
            ("episode length, environment steps", self.episode_env_steps),
            ("episode return", self.episode_return),
        ):
            for line in histogram(title, found):
                console.print(line, soft_wrap=True, highlight=False)

    def _table(self) -> Table:
        table = Table("")
        shown = self.shards if 1 < len(self.shards) <= SHOWN_SHARDS else []
        for shard in range(len(shown)):
            table.add_column(f"shard {shard}", justify="right")
        table.add_column("all" if len(self.shards) > 1 else "held", justify="right")
        names = {"windows": f"windows of {self.batch_length} rows", "episodes": "whole episodes"}
        for field in dataclasses.fields(Holding):
            values = [getattr(held, field.name) for held in [*shown, total(self.shards)]]
            table.add_row(names.get(field.name, field.name.replace("_", " ")), *(f"{value:,}" for value in values))
        return table


def statistics(source: Source, batch_length: int) -> Statistics:
    """Counts what a source holds, and reads the rewards of its whole episodes.

    Raises:
        CodecError: a chunk that is read for that is damaged.
    """
    repeat, stocks = source.facts.action_repeat, source.stocks()
    whole = [piece for stock in stocks for piece in episode_parts(stock.chunks) if piece.whole]
    return Statistics(
        source.facts,
        batch_length,
        [holding(stock, repeat, batch_length) for stock in stocks],
        spread([float(repeat * (episode.rows - 1)) for episode in whole]),
        spread(episode_returns(source, whole)),
    )


def histogram(title: str, found: Spread | None) -> Iterator[str]:
    """A histogram in lines of text."""
    if found is None:
        yield f"{title}: no episode is held whole"
        return
    if found.not_finite:
        yield f"{title}: of {found.not_finite:,} whole episodes it is not finite"
    if found.count:
        yield (
            f"{title}: {found.count:,} whole episodes, mean {found.mean:,.1f}, "
            f"{found.lowest:,.1f} to {found.highest:,.1f}"
        )
    for low, high, count in zip(found.edges, found.edges[1:], found.bins, strict=False):
        yield f"{low:12,.1f} – {high:<12,.1f} {'█' * round(BAR * count / max(found.bins)):<{BAR}} {count:,}"
