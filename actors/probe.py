"""`python -m actors.probe TASK CONFIG`: draws one frame of a task and prints one line of JSON about it.

`actors.rendering.probe` runs it, so that a backend that crashes or hangs does so in a process nobody needs. CONFIG is
an `EnvironmentConfig` as JSON. The line holds `action_size` and `renderer`, or `user_error`.
"""

from __future__ import annotations

import json
import sys

from actors.environment import make_environment
from common.config import EnvironmentConfig
from common.errors import UserError


def main(task: str, config: str) -> None:
    """Builds, resets, steps once, answers."""
    try:
        with make_environment(task, EnvironmentConfig(**json.loads(config)), seed=0) as environment:
            environment.reset()
            action_size = environment.action_spec().shape[0]
            environment.step([0.0] * action_size)
            answer = {"action_size": action_size, "renderer": environment.renderer()}
    except UserError as error:
        answer = {"user_error": str(error)}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
