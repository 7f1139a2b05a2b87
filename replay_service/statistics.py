"""How much a replay holds, and what its episodes are like."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from replay_service.samplers import Sampler, UniformStep
from replay_service.source import Source
from replay_service.stock import EpisodePart, Stock, Stored, episode_parts
from replay_service.stores.trouble import ChunkGoneError
from replay_service.windows import WindowIndex

BINS = 10


@dataclass(frozen=True)
class Holding:
    """What one shard holds, or all of them.

    Attributes:
        chunks: chunks held.
        rows: their rows.
        env_steps: their environment steps: action repeat × rows that are no reset row.
        inserted_env_steps: environment steps ever inserted, evicted ones included.
        bytes: memory or disk that the store takes.
        episodes: episodes held from their reset row to their end.
        open_episodes: episodes that may go on, held from their reset row: the newest of an environment.
        fragments: other pieces of episodes: the beginning was evicted, or the end never came.
        windows: windows of the training's length.
        streams: environments, in one life of an actor each, that rows are held of.
        incarnations: lives of actors that rows are held of.
    """

    chunks: int
    rows: int
    env_steps: int
    inserted_env_steps: int
    bytes: int
    episodes: int
    open_episodes: int
    fragments: int
    windows: int
    streams: int
    incarnations: int


@dataclass(frozen=True)
class Spread:
    """A histogram of finite values.

    Attributes:
        count: how many there are.
        mean: of them.
        lowest: of them.
        highest: of them.
        edges: of the bins, one more than there are bins.
        bins: values in each bin.
        not_finite: how many values are left out, because they are NaN or infinite.
    """

    count: int
    mean: float
    lowest: float
    highest: float
    edges: list[float]
    bins: list[int]
    not_finite: int = 0


def holding(stock: Stock, action_repeat: int, length: int) -> Holding:
    """What a shard holds.

    Args:
        stock: the shard's.
        action_repeat: environment steps a row.
        length: L, rows a window.
    """
    pieces = episode_parts(stock.chunks)
    whole, going_on = sum(piece.whole for piece in pieces), len(_open(pieces))
    return Holding(
        chunks=len(stock.chunks),
        rows=sum(chunk.rows for chunk in stock.chunks),
        env_steps=sum(chunk.env_steps(action_repeat) for chunk in stock.chunks),
        inserted_env_steps=stock.inserted_env_steps,
        bytes=stock.bytes,
        episodes=whole,
        open_episodes=going_on,
        fragments=len(pieces) - whole - going_on,
        windows=index(stock.chunks, length, UniformStep()).windows,
        streams=len({chunk.key.stream for chunk in stock.chunks}),
        incarnations=len({chunk.key.stream[:2] for chunk in stock.chunks}),
    )


def total(holdings: Sequence[Holding]) -> Holding:
    """What all shards hold together: no stream and no life of an actor is in two of them."""
    return Holding(*(sum(column) for column in zip(*map(dataclasses.astuple, holdings), strict=True)))


def index(chunks: Iterable[Stored], length: int, sampler: Sampler) -> WindowIndex:
    """The windows of `length` rows in a shard's chunks, numbered anew: a dataset's places may lie far apart."""
    windows = WindowIndex(length, sampler)
    for number, chunk in enumerate(chunks):
        windows.append(number, chunk.key, chunk.rows, chunk.is_last)
    return windows


def episode_returns(source: Source, episodes: Iterable[EpisodePart]) -> list[float]:
    """Sum of rewards of each whole episode; one that was evicted meanwhile is left out.

    Raises:
        CodecError: a chunk is damaged.
    """
    returns = []
    for episode in episodes:
        try:
            rewards = [source.rewards(chunk) for chunk in episode.chunks]
        except ChunkGoneError:
            continue
        returns.append(float(np.concatenate(rewards).sum(dtype=np.float64)))
    return returns


def spread(values: Sequence[float]) -> Spread | None:
    """The values' histogram, of one bin if they are all alike, and of no bin if none is finite; none of no values."""
    if not values:
        return None
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Spread(0, math.nan, math.nan, math.nan, [], [], len(values))
    lowest, highest = min(finite), max(finite)
    edges = np.linspace(lowest, highest, BINS + 1 if lowest < highest else 2)
    bins, _ = np.histogram(finite, edges)
    not_finite = len(values) - len(finite)
    return Spread(len(finite), float(np.mean(finite)), lowest, highest, edges.tolist(), bins.tolist(), not_finite)


def _open(pieces: Sequence[EpisodePart]) -> list[EpisodePart]:
    """The episodes held from their reset row that may still go on."""
    newest = {piece.first.stream: piece for piece in pieces}
    lives = {stream.actor: stream.incarnation for stream in sorted(newest)}  # an actor's last life
    return [
        piece
        for stream, piece in newest.items()
        if piece.first.index == 0 and not piece.finished and stream.incarnation == lives[stream.actor]
    ]
