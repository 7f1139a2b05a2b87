"""The peak that `benchmark learner` gives for each path is that path's alone."""

from __future__ import annotations

import torch

from cluster.benchmarks.memory import peak_bytes

ROWS = torch.ones(1000, 1000)  # 4 MB
SLACK = 1000


def two_at_a_time() -> object:
    before = ROWS + 1
    after = before + 1
    del before
    return (after + 1).sum()


def five_at_a_time() -> object:
    return [ROWS + i for i in range(5)]


def test_a_peak_is_what_is_held_at_once() -> None:
    assert abs(peak_bytes(two_at_a_time, "cpu") - 8e6) < SLACK
    assert abs(peak_bytes(five_at_a_time, "cpu") - 20e6) < SLACK


def test_what_came_before_does_not_matter() -> None:
    alone = peak_bytes(two_at_a_time, "cpu")
    five_at_a_time()
    kept = ROWS + 1
    assert peak_bytes(two_at_a_time, "cpu") == alone
    assert kept.sum() > 0


def test_tensors_kept_for_the_backward_pass_count() -> None:
    start = torch.ones(1000, 1000, requires_grad=True)

    def learn() -> object:
        y = start
        for _ in range(6):
            y = y.sin()  # keeps its input
        return torch.autograd.grad(y.sum(), start)

    assert peak_bytes(learn, "cpu") > 6 * 4e6
