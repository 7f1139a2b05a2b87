"""`dreamfleet adjust`: changes a run while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cluster.control import ask
from cluster.flags import parse
from cluster.validation import validate
from common.errors import UserError
from common.run_folder import RunFolder
from replay_service.offline_limiter import limiter_of


@dataclass(frozen=True)
class AdjustArguments:
    """Changes a run while it runs; one that was stopped goes on with the change."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    train_ratio: float
    """Updates per environment step from now on."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(AdjustArguments, "adjust", args)
    folder, ratio = RunFolder(arguments.run), arguments.train_ratio
    config, summary = folder.load_config(), folder.summary()
    if summary is not None and summary["finished"]:
        raise UserError(f"{folder.path} is finished: there is nothing left to adjust")
    validate(dataclasses.replace(config, train_ratio=ratio))
    limiter_of(config).set_train_ratio(ratio)
    ask(folder, ratio)
    print(f"{folder.path}: {ratio:g} updates per environment step, as soon as the run looks")
    return 0
