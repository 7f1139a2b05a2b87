"""Integers by number, where only a stretch of consecutive numbers is held at any time, as in a queue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 64


class Ring:
    """A growing ring buffer: number n lies in slot n mod capacity. The ring doubles when the queue outgrows it.

    Read and written one by one from Python and many at once from numpy, on the same memory.
    """

    def __init__(self) -> None:
        self._capacity = _SMALLEST
        self._first = 0
        self._end = 0
        self._reserve()

    @property
    def first(self) -> int:
        """The front of the queue."""
        return self._first

    def __getitem__(self, number: int) -> int:
        """The value of a number; 0 where none is held."""
        return self._quick[number % self._capacity] if self._first <= number < self._end else 0

    def __setitem__(self, number: int, value: int) -> None:
        """Sets the value of a number that is not below the front; a number beyond the end extends the queue."""
        if self._first == self._end:
            self._first = self._end = number
        self._end = max(self._end, number + 1)
        while self._end - self._first > self._capacity:
            self._double()
        self._quick[number % self._capacity] = value

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values of numbers that are held, int64 (n,)."""
        return self._values[numbers % self._capacity]

    def forget_before(self, number: int) -> None:
        """Moves the front of the queue; the values that leave it become 0."""
        for gone in range(self._first, min(number, self._end)):
            self[gone] = 0
        self._first = max(self._first, number)
        self._end = max(self._end, self._first)

    def _double(self) -> None:
        # The end may be a number ahead already; the numbers that were held fill the old ring and no more.
        numbers = np.arange(self._first, self._first + self._capacity)
        values = self.take(numbers)
        self._capacity *= 2
        self._reserve()
        self._values[numbers % self._capacity] = values

    def _reserve(self) -> None:
        """Memory for `capacity` values, all 0."""
        self._use(np.zeros(self._capacity, np.int64))

    def _use(self, values: NDArray[np.int64]) -> None:
        self._values = values
        self._quick = values.data  # one value by memoryview costs a third of one by numpy
