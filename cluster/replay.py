"""`dreamfleet replay`: looks into replay data, makes sure of it, and moves it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from common.errors import UserError
from replay_service.stores.trouble import StoreUnavailableError

ACTIONS = {
    "stats": "what is held: chunks, rows, episodes, windows, and histograms of returns and lengths",
    "verify": "whether every chunk is as it was inserted; exit code 1 when one is not",
    "export": "everything that is held as a dataset, a folder that travels",
    "import": "a dataset into the replay of a run that is to go on from it",
}


def usage() -> str:
    """The help of `dreamfleet replay` itself."""
    lines = [f"  {name:<7} {what}" for name, what in ACTIONS.items()]
    return "\n".join(
        ("usage: dreamfleet replay ACTION [OPTIONS]", "", *lines, "", "dreamfleet replay ACTION --help tells more.")
    )


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    action, *rest = args
    if action not in ACTIONS:
        raise UserError(f"unknown action '{action}': choose from {', '.join(ACTIONS)}")
    try:
        code: int = importlib.import_module(f"cluster.replay_data.{action}_action").main(rest)
    except StoreUnavailableError as error:
        raise UserError(str(error)) from None
    return code
