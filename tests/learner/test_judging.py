"""Heads that look at dreams once, some states at a time, learn what they learn from two looks at all of them."""

from __future__ import annotations

import pytest
import torch

from learner import judging
from learner.judging import judge, judge_and_learn
from learner.networks import ScalarHead

HORIZONS = [2, 3, 5]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ROWS", 4)


@pytest.fixture(params=[0, 1, 3], ids="{} layers".format)
def head(request: pytest.FixtureRequest) -> ScalarHead:
    torch.manual_seed(0)
    return ScalarHead(5, request.param, 6).double()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def assert_same(actual: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_values_and_the_features_gradients_are_the_heads(head: ScalarHead, horizon: int) -> None:
    feature, gradient = random(horizon, 3, 5), random(horizon, 3).detach()
    for seen in (judge(head, feature), judge_and_learn(head, feature)[0]):
        expected = head(feature)
        assert_same((seen,), (expected,))
        assert_same(torch.autograd.grad(seen, feature, gradient), torch.autograd.grad(expected, feature, gradient))


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_heads_own_gradients_are_those_of_all_steps_but_the_last(head: ScalarHead, horizon: int) -> None:
    feature, gradient = random(horizon, 3, 5), random(horizon - 1, 3).detach()
    _, learnt = judge_and_learn(head, feature)
    expected = head(feature[:-1])
    assert_same((learnt,), (expected,))
    parameters = list(head.parameters())
    assert_same(torch.autograd.grad(learnt, parameters, gradient), torch.autograd.grad(expected, parameters, gradient))


def test_each_way_back_ends_where_it_should(head: ScalarHead) -> None:
    feature = random(2, 3, 5)
    seen, learnt = judge_and_learn(head, feature)
    parameters = list(head.parameters())
    assert torch.autograd.grad(seen.sum(), parameters, allow_unused=True) == (None,) * len(parameters)
    assert torch.autograd.grad(learnt.sum(), feature, allow_unused=True) == (None,)
