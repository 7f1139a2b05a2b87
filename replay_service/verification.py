"""Whether a replay is what was inserted: every chunk's checksum, and whether chunks, marks and counters agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from common.sequence import StreamKey
from replay_service.codec import CodecError
from replay_service.source import Source, lost
from replay_service.stock import Stock, Stored
from replay_service.stores.trouble import ChunkGoneError


@dataclass
class Verdict:
    """What became of reading every chunk.

    Attributes:
        good: chunks as they were inserted.
        damaged: a line for each chunk that is not.
        evicted: chunks that the run evicted before they were read.
    """

    good: int = 0
    damaged: list[str] = field(default_factory=list)
    evicted: int = 0


def read_all(source: Source, stocks: Sequence[Stock], progress: Callable[[int, int], None]) -> Verdict:
    """Reads every chunk and compares its checksum.

    Args:
        source: where they are.
        stocks: of its shards.
        progress: told how many of how many chunks are done.
    """
    verdict = Verdict()
    gone: list[Stored] = []
    chunks = [chunk for stock in stocks for chunk in stock.chunks]
    for done, stored in enumerate(chunks):
        progress(done, len(chunks))
        try:
            source.chunk(stored)
            verdict.good += 1
        except CodecError as error:
            verdict.damaged.append(f"{stored}: {error}")
        except ChunkGoneError:
            gone.append(stored)
    progress(len(chunks), len(chunks))
    missing = lost(source, gone)
    verdict.damaged += (f"{stored}: it is not there" for stored in missing)
    verdict.evicted = len(gone) - len(missing)
    return verdict


def contradictions(stock: Stock, shard: int, action_repeat: int) -> Iterator[str]:
    """A line for each thing in a shard that cannot be: chunks missing in the middle, marks or counters that disagree.

    Chunks leave a store in the order in which they came, so the oldest of every environment may be missing, and no
    other.
    """
    for before, chunk in zip(stock.chunks, stock.chunks[1:], strict=False):
        if chunk.sequence != before.sequence + 1:
            yield f"shard {shard}: missing between two chunks: {_span(before.sequence + 1, chunk.sequence)}"
    newest: dict[StreamKey, Stored] = {}
    for chunk in stock.chunks:
        complaint = _complaint(newest.get(chunk.key.stream), chunk)
        if complaint:
            yield f"{chunk}: {complaint}"
        newest[chunk.key.stream] = chunk
    for stream, chunk in newest.items():
        held = (chunk.key.episode, chunk.key.index)
        if held > stock.later_marks.get(stream, (-1, -1)):
            yield f"{chunk}: no mark says that it was inserted, so it may be inserted again"
        elif held < stock.marks.get(stream, (-1, -1)):
            yield f"{chunk}: a later chunk of its environment was inserted and is missing: {stock.marks[stream]}"
    held_env_steps = sum(chunk.env_steps(action_repeat) for chunk in stock.chunks)
    complete = not stock.chunks or stock.chunks[0].sequence == 0  # nothing was ever evicted
    if held_env_steps > stock.later_inserted_env_steps or (complete and held_env_steps < stock.inserted_env_steps):
        yield (
            f"shard {shard}: {held_env_steps:,} environment steps are held and "
            f"{stock.later_inserted_env_steps:,} counted as inserted"
        )


def _complaint(before: Stored | None, chunk: Stored) -> str:
    """Why a chunk cannot follow the one before it of its environment, if any is held; empty if it can."""
    key = chunk.key
    if before is None:
        return ""
    if before.key.episode < key.episode:
        return f"its episode's beginning is missing: index {_span(0, key.index)}" if key.index else ""
    if key <= before.key:
        return f"it comes after episode {before.key.episode}, index {before.key.index}"
    if before.is_last:
        return "its episode had ended before it"
    if key.index > before.key.index + 1:
        return f"what comes before it in its episode is missing: index {_span(before.key.index + 1, key.index)}"
    return ""


def _span(start: int, stop: int) -> str:
    return f"{start}" if stop == start + 1 else f"{start} to {stop - 1}"
