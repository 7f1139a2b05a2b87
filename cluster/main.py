"""The `dreamfleet` command."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from common.errors import UserError
from common.room import is_full

COMMANDS = {
    "train": ("cluster.train", "train an agent, or resume a run"),
    "adjust": ("cluster.adjust", "change a run while it runs"),
    "evaluate": ("cluster.evaluate", "evaluate a run's newest checkpoint"),
    "inspect": ("cluster.look_inside", "what a run's world model predicts on episodes it has never seen"),
    "plot": ("cluster.plot", "draw learning curves, or a dashboard"),
    "monitor": ("cluster.monitor", "Prometheus beside the runs of this machine"),
    "study": ("cluster.study", "run a grid of tasks, algorithms and seeds, and report on it"),
    "replay": ("cluster.replay", "look into replay data, make sure of it, move it"),
    "benchmark": ("cluster.benchmark", "measure actors, replay, learner or the whole system against its limit"),
    "doctor": ("cluster.examine", "what this machine can do, and what to do about what it lacks"),
}

PATH_TROUBLES = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
"""What is wrong with a path that a user named, and not with the program."""


def usage() -> str:
    """The help of `dreamfleet` itself."""
    lines = [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(("usage: dreamfleet COMMAND [OPTIONS]", "", *lines, "", "dreamfleet COMMAND --help tells more."))


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; a `UserError`, or a path that cannot be used, becomes one line and exit code 2."""
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
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if is_full(error):
            print(f"dreamfleet: no room on the disk for {error.filename or 'what is written'}", file=sys.stderr)
            return 2
        if error.errno not in PATH_TROUBLES or error.filename is None:
            raise
        print(f"dreamfleet: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dreamfleet: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
