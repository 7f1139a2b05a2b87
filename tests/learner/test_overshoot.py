"""The trajectory evaluator's data: real segments, and the model's own from the same starts under the same actions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.behaviors.trajectory_evaluator import Transitions, real_and_overshoot, segment_count
from learner.world_model.state import State
from tests.learner.reference import idm as reference
from tests.learner.reference.layers import array
from tests.learner.reference.rssm import Belief
from tests.learner.small_rssm import ACTION, DETER, STOCH, make_reference, make_rssm

B = 3
SIZES = [(7, 2), (7, 3), (7, 6), (8, 3), (2, 1), (5, 1), (4, 3)]


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Data:
    """Posterior states and actions of L rows, and what becomes of them."""

    def __init__(self, length: int, overshoot: int) -> None:
        self.rssm = make_rssm()
        parts = (randn(length, B, size, seed=i) for i, size in enumerate((DETER, STOCH, STOCH, STOCH)))
        self.posterior = State(*(part.requires_grad_() for part in parts))
        self.action = randn(length, B, ACTION, seed=9)
        self.belief = Belief(*(array(part) for part in self.posterior))
        self.starts = reference.segment_starts(length, overshoot)
        self.overshoot = overshoot
        self.noise = randn(overshoot, B * segment_count(length, overshoot), STOCH, seed=10)
        self.real, self.fake = real_and_overshoot(self.rssm, self.posterior, self.action, overshoot, self.noise)

    def origins(self) -> list[tuple[int, int]]:
        """(sequence, row) where each segment starts, found by its first feature."""
        firsts = array(self.real.before[0])
        found = []
        for first in firsts:
            rows, sequences = np.nonzero((self.belief.feature == first).all(-1))
            assert len(rows) == 1
            found.append((int(sequences[0]), int(rows[0])))
        return found


@pytest.fixture(params=SIZES, ids=lambda size: f"L {size[0]}, T {size[1]}")
def data(request: pytest.FixtureRequest) -> Data:
    return Data(*request.param)


def test_segments_start_every_t_rows_as_long_as_they_fit(data: Data) -> None:
    expected = {(sequence, start) for sequence in range(B) for start in data.starts}
    assert set(data.origins()) == expected
    assert len(data.origins()) == len(expected)


def test_there_are_as_many_fake_transitions_as_real_ones(data: Data) -> None:
    count = B * len(data.starts)
    for transitions in (data.real, data.fake):
        sizes = (transitions.before.shape, transitions.action.shape, transitions.after.shape)
        assert sizes == tuple((data.overshoot, count, size) for size in (STOCH + DETER, ACTION, STOCH + DETER))


def check(transitions: Transitions, segment: int, expected: reference.Steps) -> None:
    for actual, each in zip(transitions, expected, strict=True):
        np.testing.assert_allclose(array(actual[:, segment]), each, rtol=1e-10, atol=1e-12)


def test_real_transitions_pair_a_state_with_the_action_taken_in_it(data: Data) -> None:
    for segment, (sequence, start) in enumerate(data.origins()):
        expected = reference.real_segment(data.belief, array(data.action), sequence, start, data.overshoot)
        check(data.real, segment, expected)


def test_fake_transitions_leave_the_real_start_by_the_prior_under_the_stored_actions(data: Data) -> None:
    rssm = make_reference(data.rssm)
    for segment, (sequence, start) in enumerate(data.origins()):
        noise = array(data.noise[:, segment])
        expected = reference.overshoot_segment(rssm, data.belief, array(data.action), sequence, start, noise)
        check(data.fake, segment, expected)
    assert data.fake.before[0].equal(data.real.before[0])
    assert data.fake.action.equal(data.real.action)


def test_all_of_it_is_detached(data: Data) -> None:
    assert not any(part.requires_grad for transitions in (data.real, data.fake) for part in transitions)


@pytest.mark.parametrize(
    ("length", "overshoot", "count"), [(50, 10, 4), (51, 10, 5), (11, 10, 1), (10, 10, 0), (4, 3, 1), (8, 3, 2)]
)
def test_a_window_holds_so_many_segments(length: int, overshoot: int, count: int) -> None:
    assert segment_count(length, overshoot) == count == len(reference.segment_starts(length, overshoot))
