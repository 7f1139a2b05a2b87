"""Noise on states."""

from __future__ import annotations

import pytest
import torch

from learner.disturbance import FORMS, disturb
from tests.learner.small_rssm import DETER, STOCH, random_state

N, COPIES = 3, 2
STATE = random_state(N, torch.Generator().manual_seed(0))
GENERATOR = torch.Generator().manual_seed(1)
NOISE_H = torch.randn(COPIES, N, DETER, generator=GENERATOR, dtype=torch.float64)
NOISE_S = torch.randn(COPIES, N, STOCH, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
def test_each_copy_of_each_state_gets_its_own_noise(form) -> None:
    found = disturb(STATE, 0.5, form, NOISE_H, NOISE_S)
    assert found.shape == (COPIES, N, STOCH + DETER)
    for copy in range(COPIES):
        for row in range(N):
            stoch, deter = found[copy, row].split([STOCH, DETER])
            torch.testing.assert_close(deter, STATE.deter[row] + 0.5 * NOISE_H[copy, row])
            if form == "added":
                expected = STATE.stoch[row] + 0.5 * NOISE_S[copy, row]
            else:
                expected = STATE.mean[row] + (STATE.std[row] + 0.5) * NOISE_S[copy, row]
            torch.testing.assert_close(stoch, expected)


def test_no_noise_added_leaves_the_state_and_no_noise_derived_draws_another_sample() -> None:
    torch.testing.assert_close(disturb(STATE, 0.0, "added", NOISE_H, NOISE_S)[1], STATE.feature)
    stoch, deter = disturb(STATE, 0.0, "derived", NOISE_H, NOISE_S)[1].split([STOCH, DETER], -1)
    torch.testing.assert_close(deter, STATE.deter)
    torch.testing.assert_close(stoch, STATE.mean + STATE.std * NOISE_S[1])
