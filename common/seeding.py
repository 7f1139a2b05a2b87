"""Independent random streams from one seed, so that no two roles ever share one."""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the role named by `path`, e.g. `derive_seed(0, "collector", actor, incarnation)`.

    The same arguments give the same value on every machine.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))
