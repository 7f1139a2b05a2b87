"""Where a batch's sequences came from, so that what the model lost on them finds its way back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Part(NamedTuple):
    """Consecutive sequences of a batch that one shard drew: the chunks in which they start, int64 (n,)."""

    shard: int
    starts: NDArray[np.int64]


Origin = list[Part]
"""All parts of a batch, in its order."""


def split_losses(origin: Origin, losses: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The losses (B,) of a batch's sequences, part by part."""
    return np.split(losses, np.cumsum([len(part.starts) for part in origin])[:-1])
