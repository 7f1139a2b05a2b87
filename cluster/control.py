"""What is asked of a run while it runs: `control.json` in its folder, which `dreamfleet adjust` writes."""

from __future__ import annotations

import json
from collections.abc import Callable

from cluster.recorder import Recorder
from common.durable import replace_durably
from common.errors import UserError
from common.run_folder import RunFolder
from replay_service.limiter import RateLimiter

NAME = "control.json"


def ask(folder: RunFolder, train_ratio: float) -> None:
    """Asks for a train ratio. The file stays, so that it holds for every later life of the run too."""
    path, text = folder.path / NAME, json.dumps({"train_ratio": train_ratio}) + "\n"
    folder.room.write(path, lambda: replace_durably(path, text.encode()))


class Control:
    """Brings a run to what is asked of it.

    Args:
        folder: the run's.
        limiter: the run's.
        tell: shows a message.

    Attributes:
        wanted: the train ratio that is asked for and not held yet; None if there is none.
    """

    def __init__(self, folder: RunFolder, limiter: RateLimiter, tell: Callable[[str], None]) -> None:
        self.path = folder.path / NAME
        self.limiter = limiter
        self.tell = tell
        self.wanted: float | None = None
        self._seen = b""

    def look(self) -> None:
        """Reads the file, if it has changed since the last look."""
        content = self.path.read_bytes() if self.path.exists() else b""
        if content == self._seen:
            return
        self._seen = content
        try:
            ratio = json.loads(content)["train_ratio"]
        except (ValueError, KeyError, TypeError):
            ratio = None
        if not isinstance(ratio, int | float) or isinstance(ratio, bool):
            self.tell(f'not adjusted: {self.path} must read like {{"train_ratio": 0.1}}')
        else:
            self.wanted = None if ratio == self.limiter.train_ratio else float(ratio)

    def apply(self, recorder: Recorder) -> None:
        """Holds the ratio that is wanted from here on, and writes it down.

        No call may be under way that was granted by the ratio of before, or it would end outside the band.
        """
        if self.wanted is None:
            return
        before, wanted, self.wanted = self.limiter.train_ratio, self.wanted, None
        try:
            self.limiter.set_train_ratio(wanted)
        except UserError as error:
            self.tell(f"not adjusted: {error}")
            return
        self.tell(f"the train ratio is {wanted:g} from here on, and was {before:g}")
        recorder.changed(self.limiter, {"train_ratio": (before, wanted)})
