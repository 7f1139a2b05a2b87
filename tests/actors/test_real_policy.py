"""The collector and the evaluator with the learner's own policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.collector import Collector
from actors.evaluator import Evaluator
from common.config import Config
from common.presets import smoke
from learner.policy import Policy, policy_weights
from tests.actors.scripted import ListSink


@pytest.fixture
def settings() -> Config:
    base = smoke()
    return replace(base, task="tests.tiny:make", environment=replace(base.environment, action_repeat=1))


def test_collected_actions_are_the_policys_own_with_noise_within_bounds(settings: Config) -> None:
    policy, sink = Policy(settings, action_size=1), ListSink()
    actor = Collector(settings, 0, 0, sink, policy)
    actor.set_weights(1, policy_weights(policy.encoder, policy.rssm, policy.reward, policy.acting))
    report = actor.collect(2 * 48)
    actor.close()
    assert report.stepped == 96
    assert [episode.weights_version for episode in report.episodes] == [1] * 4
    actions = np.concatenate([rows.action[1:] for rows in sink.episodes().values()])
    assert np.abs(actions).max() <= 1
    assert actions.std() > 0.1


def test_evaluation_depends_on_weights_and_seed_alone(settings: Config) -> None:
    policy = Policy(settings, action_size=1)
    weights = policy_weights(policy.encoder, policy.rssm, policy.reward, policy.acting)
    first, second = Evaluator(settings, policy), Evaluator(settings, Policy(settings, action_size=1, seed=9))
    options: dict[str, Any] = {"episodes": 2, "rotation_degrees": 5.0}
    returns = [each.evaluate(1, weights, **options).returns for each in (first, first, second)]
    assert returns[0] == returns[1] == returns[2]
    assert returns[0] != first.evaluate(1, weights, **options, seed=1).returns
    first.close()
    second.close()
