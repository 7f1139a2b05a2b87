"""Draws in proportion to integer weights that come at the end and go at the front, in O(log n)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from replay_service.ring import Ring


class SumTree(Ring):
    """Weights by number; above the ring of weights lies a binary tree of their sums.

    The sums are integers, so that they are exact: what leaves takes along all that it brought.
    """

    @property
    def total(self) -> int:
        """Sum of all weights."""
        return self._nodes[1]

    def __setitem__(self, number: int, weight: int) -> None:
        """Sets the weight of a number that is not below the front; a number beyond the end extends the queue."""
        change = weight - self[number]
        super().__setitem__(number, weight)
        node = (self._capacity + number % self._capacity) // 2
        while change and node:
            self._nodes[node] += change
            node //= 2

    def find(self, ticks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each tick in [0, total): the number whose share of [0, total) holds it, and how far into that share.

        Shares follow each other in the order of numbers, so a uniform tick finds each number in proportion to its
        weight, and the same weights in the same order are found alike, whatever was in the queue before them.

        Args:
            ticks: int64 (n,).

        Returns:
            numbers and remainders, int64 (n,) each.
        """
        return self._descend(ticks, self._sums.take, self.total, self._before_front())

    def find_with(
        self, other: SumTree, factor: int, ticks: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `find`, where each number weighs what it weighs here and `factor` times what it weighs in another tree.

        Args:
            other: holds the same numbers.
            factor: of its weights.
            ticks: int64 (n,), below total + factor · other's total.
        """
        total = self.total + factor * other.total
        before = self._before_front() + factor * other._before_front()
        return self._descend(ticks, lambda node: self._sums.take(node) + factor * other._sums.take(node), total, before)

    def _descend(
        self, ticks: NDArray[np.int64], sums: Callable[[NDArray[np.int64]], NDArray[np.int64]], total: int, before: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rest = (ticks + before) % total
        node = np.ones_like(rest)
        for _ in range(self._capacity.bit_length() - 1):  # every leaf lies at the same depth
            node *= 2
            left = sums(node)
            right = rest >= left
            rest -= left * right
            node += right
        slots = node - self._capacity
        return self._first + (slots - self._first) % self._capacity, rest

    def _before_front(self) -> int:
        """Sum of the weights in the slots below the front's: the end of the queue, gone around the ring."""
        node, total = self._capacity + self._first % self._capacity, 0
        while node > 1:
            if node % 2:
                total += self._nodes[node - 1]
            node //= 2
        return total

    def _double(self) -> None:
        super()._double()
        level = self._capacity // 2
        while level:
            self._sums[level : 2 * level] = self._sums[2 * level : 4 * level].reshape(-1, 2).sum(1)
            level //= 2

    def _reserve(self) -> None:
        self._sums = np.zeros(2 * self._capacity, np.int64)  # node i has children 2i and 2i + 1; leaves come last
        self._nodes = self._sums.data
        self._use(self._sums[self._capacity :])
