"""Means and rank correlations with intervals over episodes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cluster.inspection.statistics import RESAMPLES, mean_interval, resample, spearman_interval


def test_a_rank_correlation_is_scipys_and_lies_in_its_interval() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 5, 20))
    y = x + random.normal(size=x.shape)
    x[0, 0, :4] = 1.0  # ties
    found = spearman_interval(x, y, resample(8, 0))
    assert found["rho"] == pytest.approx(stats.spearmanr(x.ravel(), y.ravel()).statistic)
    assert found["low"] < found["rho"] < found["high"]
    assert spearman_interval(x, np.exp(x), resample(8, 0)) == pytest.approx({"rho": 1.0, "low": 1.0, "high": 1.0})


def test_an_interval_is_of_whole_episodes() -> None:
    values = np.repeat([[0.0], [1.0], [5.0]], 1000, axis=1)  # alike within each: many rows say no more than one
    picks = resample(3, 0)
    assert picks.shape == (RESAMPLES, 3)
    found = mean_interval(values, picks)
    low, high = np.percentile(values[:, 0][picks].mean(1), [2.5, 97.5])
    assert found == pytest.approx({"mean": 2.0, "low": low, "high": high})
    assert mean_interval(values[:, :1], picks) == pytest.approx(found)


def test_one_episode_has_no_interval_and_constants_no_correlation() -> None:
    assert mean_interval(np.ones((1, 4)), resample(1, 0)) == {"mean": 1.0, "low": None, "high": None}
    random = np.random.default_rng(0).normal(size=(2, 3, 10))
    alone = spearman_interval(random[0][None], random[1][None], resample(1, 0))
    assert alone["low"] is alone["high"] is None
    assert alone["rho"] is not None
    assert spearman_interval(np.ones((3, 4)), random[0, :, :4], resample(3, 0)) == {
        "rho": None,
        "low": None,
        "high": None,
    }
