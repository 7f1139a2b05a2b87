"""`dreamfleet replay verify`: whether everything that is held is as it was inserted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.flags import parse
from cluster.replay_data.opening import open_data
from cluster.replay_data.waiting import showing
from common.jsonl import as_json
from replay_service.source import Source, StoreSource
from replay_service.stores.trouble import StoreDamagedError
from replay_service.verification import Verdict, contradictions, read_all


@dataclass(frozen=True)
class VerifyArguments:
    """Reads every chunk and compares its checksum, and holds chunks, marks and counters against each other.

    Exit code 1 when anything is damaged. A run that is going on is not disturbed.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Run folder, dataset, or redis://host:port#PREFIX."""
    action_repeat: int = 0
    """Environment steps a row, for redis://host:port#PREFIX, which does not tell."""
    redis_password_file: str = ""
    """File with the password of the Redis servers, instead of DREAMFLEET_REDIS_PASSWORD."""
    json: bool = False
    """Print JSON."""


def main(args: Sequence[str]) -> int:
    """Runs the action; returns the exit code: 1 when there is damage."""
    arguments = parse(VerifyArguments, "replay verify", args)
    try:
        opened = open_data(arguments.data, arguments.redis_password_file, action_repeat=arguments.action_repeat)
        verdict, disagreements = verify(opened.source)
        opened.source.close()
    except StoreDamagedError as error:  # so badly that its chunks cannot even be listed
        verdict, disagreements = Verdict(), [str(error)]
    chunks = verdict.good + len(verdict.damaged)
    if arguments.json:
        print(as_json({"chunks": chunks, **vars(verdict), "contradictions": disagreements}))
    else:
        for line in (*verdict.damaged, *disagreements):
            print(line)
        evicted = f"; {verdict.evicted:,} were evicted meanwhile" if verdict.evicted else ""
        print(f"{arguments.data}: {verdict.good:,} of {chunks:,} chunks are good{evicted}")
    return int(bool(verdict.damaged or disagreements))


def verify(source: Source) -> tuple[Verdict, list[str]]:
    """What became of reading every chunk, and a line for each thing that cannot be."""
    stocks = source.stocks()
    disagreements: list[str] = []
    if isinstance(source, StoreSource):  # a dataset's manifest agrees with itself, or it would not have been opened
        for shard, stock in enumerate(stocks):
            disagreements += contradictions(stock, shard, source.facts.action_repeat)
    with showing("reading") as progress:
        return read_all(source, stocks, progress), disagreements
