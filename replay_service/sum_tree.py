"""Draws in proportion to integer weights that come at the end and go at the front, in O(log n)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 64


class SumTree:
    """Weights by number, where only a window of consecutive numbers is non-zero at any time, as in a queue.

    A binary tree of sums over a ring of slots: number n lies in slot n mod capacity. The ring doubles when the queue
    outgrows it.
    """

    def __init__(self) -> None:
        self._capacity = _SMALLEST
        self._sums = np.zeros(2 * self._capacity, np.int64)  # node i has children 2i and 2i + 1; leaves come last
        self._first = 0
        self._end = 0

    @property
    def total(self) -> int:
        """Sum of all weights."""
        return int(self._sums[1])

    def __getitem__(self, number: int) -> int:
        if not self._first <= number < self._end:
            return 0
        return int(self._sums[self._capacity + number % self._capacity])

    def __setitem__(self, number: int, weight: int) -> None:
        """Sets the weight of a number that is not below the front; a number beyond the end extends the queue."""
        if self._first == self._end:
            self._first = self._end = number
        self._end = max(self._end, number + 1)
        while self._end - self._first > self._capacity:
            self._double()
        node = self._capacity + number % self._capacity
        change = weight - int(self._sums[node])
        while change and node:
            self._sums[node] += change
            node >>= 1

    def forget_before(self, number: int) -> None:
        """Moves the front of the queue; the weights that leave it must be 0 already."""
        self._first = max(self._first, number)
        self._end = max(self._end, self._first)

    def find(self, ticks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each tick in [0, total): the number whose share of [0, total) holds it, and how far into that share.

        A uniform tick finds each number in proportion to its weight.

        Args:
            ticks: int64 (n,).

        Returns:
            numbers and remainders, int64 (n,) each.
        """
        rest = ticks.copy()
        node = np.ones_like(rest)
        for _ in range(self._capacity.bit_length() - 1):  # every leaf lies at the same depth
            node *= 2
            left = self._sums[node]
            right = rest >= left
            rest -= left * right
            node += right
        slots = node - self._capacity
        return self._first + (slots - self._first) % self._capacity, rest

    def _double(self) -> None:
        numbers = np.arange(self._first, self._first + self._capacity)
        weights = self._sums[self._capacity + numbers % self._capacity]
        self._capacity *= 2
        self._sums = np.zeros(2 * self._capacity, np.int64)
        self._sums[self._capacity + numbers % self._capacity] = weights
        level = self._capacity // 2
        while level:
            self._sums[level : 2 * level] = self._sums[2 * level : 4 * level].reshape(-1, 2).sum(1)
            level //= 2
