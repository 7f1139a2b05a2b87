"""Chunks that come back from a store are held against their checksums, each when it is first read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay_service.codec import BytesLike, CodecError, check
from replay_service.parcel import Draw

_REMEMBERED = 2**18
_ADVICE = "dreamfleet replay export saves the others, and another run folder begins anew"


class FirstLook:
    """Remembers which chunks of a store were found whole: a chunk is read many times, and a disk damages it once.

    A file is too large to be read through when it is opened, and without a look a learner would train on what a
    damaged disk gives it. The newest chunks take the places of evicted ones, so that this takes 2 MB and never more;
    of a store with more chunks than there are places, some are looked at again.
    """

    def __init__(self) -> None:
        self._whole = np.full(_REMEMBERED, -1, np.int64)  # a sequence number lies at its remainder
        self._edition = ""

    def check(self, draw: Draw, chunks: Sequence[BytesLike]) -> None:
        """Looks at those among a draw's chunks that were not looked at before.

        Args:
            draw: what was drawn.
            chunks: the encodings of `draw.sequences`.

        Raises:
            CodecError: one of them is damaged, or is another chunk than was stored.
        """
        if draw.edition != self._edition:  # nobody knows whether these are the chunks that were looked at
            self._whole[:] = -1
            self._edition = draw.edition
        sequences = np.array(draw.sequences, np.int64)
        for place in np.flatnonzero(self._whole[sequences % _REMEMBERED] != sequences).tolist():
            sequence = draw.sequences[place]
            try:
                found = check(chunks[place])
            except CodecError as error:
                raise CodecError(f"chunk number {sequence} of the replay is damaged: {error}; {_ADVICE}") from error
            if list(found.layout) != draw.layouts[place].tolist():
                raise CodecError(f"chunk number {sequence} of the replay is another one than was stored; {_ADVICE}")
            self._whole[sequence % _REMEMBERED] = sequence
