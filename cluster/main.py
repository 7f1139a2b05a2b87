"""The `dreamfleet` command."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from common.errors import UserError

COMMANDS = {
    "train": ("cluster.train", "train an agent, or resume a run"),
    "evaluate": ("cluster.evaluate", "evaluate a run's newest checkpoint"),
    "plot": ("cluster.plot", "draw learning curves"),
    "benchmark": ("cluster.benchmark", "measure actors, replay, learner or the whole system against its limit"),
    "doctor": ("cluster.examine", "what this machine can do, and what to do about what it lacks"),
}


def usage() -> str:
    """The help of `dreamfleet` itself."""
    lines = [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(("usage: dreamfleet COMMAND [OPTIONS]", "", *lines, "", "dreamfleet COMMAND --help tells more."))


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; a `UserError` becomes one line and exit code 2."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage())
            return 0 if arguments else 2
        command, *rest = arguments
        if command not in COMMANDS:
            raise UserError(f"unknown command '{command}': choose from {', '.join(COMMANDS)}")
        return importlib.import_module(COMMANDS[command][0]).main(rest)
    except UserError as error:
        print(f"dreamfleet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dreamfleet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
