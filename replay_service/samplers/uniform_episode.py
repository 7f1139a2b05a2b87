"""Every finished episode alike."""

from __future__ import annotations

import numpy as np

from replay_service.fragments import Fragment
from replay_service.samplers.sampler import Sampler, Starts


class UniformEpisode(Sampler):
    """Draws a finished fragment that has a window first, all of them alike, then one of its windows."""

    def __init__(self) -> None:
        self._fragments: list[Fragment] = []  # finished and with a window, in no order
        self._place: dict[Fragment, int] = {}  # of each of them in that list
        self._counts: dict[Fragment, int] = {}  # windows of each
        self._windows = 0

    @property
    def windows(self) -> int:
        """Those of finished episodes."""
        return self._windows

    def draw(self, count: int, rng: np.random.Generator) -> Starts:
        """Draws fragments uniformly, and a window of each."""
        chosen = [self._fragments[place] for place in rng.integers(len(self._fragments), size=count).tolist()]
        windows = rng.integers([fragment.windows for fragment in chosen]).tolist()
        starts = [fragment.start(window) for fragment, window in zip(chosen, windows, strict=True)]
        sequences, rows = np.array(starts, np.int64).T
        return sequences, rows

    def finished(self, fragment: Fragment) -> None:
        """Enters the fragment as it now is; one without windows leaves."""
        known = self._counts.pop(fragment, 0)
        self._windows += fragment.windows - known
        if fragment.windows:
            self._counts[fragment] = fragment.windows
        if fragment.windows and not known:
            self._place[fragment] = len(self._fragments)
            self._fragments.append(fragment)
        elif known and not fragment.windows:
            place, last = self._place.pop(fragment), self._fragments.pop()
            if last is not fragment:
                self._fragments[place] = last
                self._place[last] = place
