"""Who waits for whom."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from cluster.runtimes.runtime import LEARNER, Role

Side = Literal["insert", "update"]
Waiting = Literal["nobody waits", "prefill", "actors wait for the learner", "learner waits for actors"]


def waiting_sides(collectors: Collection[Role], busy: Collection[Role]) -> list[Side]:
    """The sides that are not called now, because the limiter lets them do nothing; without collectors, none.

    Args:
        collectors: of the run.
        busy: roles with a call under way.
    """
    if not collectors:
        return []
    sides: list[Side] = []
    if LEARNER not in busy:
        sides.append("update")
    if not any(role in busy for role in collectors):
        sides.append("insert")
    return sides


def in_words(sides: Collection[Side], *, prefill: bool) -> Waiting:
    """The same for people; during the prefill the learner waits by design."""
    if prefill:
        return "prefill"
    if "update" in sides:
        return "learner waits for actors"
    return "actors wait for the learner" if sides else "nobody waits"
