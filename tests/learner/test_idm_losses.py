"""IDM's losses and gradients, against the whole of imagination in float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.learner.dreaming import Imagined, Setup, check_slopes, reached
from tests.learner.reference import idm as reference
from tests.learner.reference.layers import array, elu_mlp, sigmoid
from tests.learner.reference.rssm import Belief
from tests.learner.tiny import BATCH, LENGTH

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "three copies": {"idm": {"copies": 3, "sigma_h": 0.5, "sigma_n": 0.2, "overshoot": 1}},
    "no copies": {"idm": {"copies": 0, "overshoot": 3}},
    "without evaluator": {"idm": {"ablation": "without_evaluator"}},
    "without derived memory": {"idm": {"ablation": "without_derived_memory"}},
    "without both": {"idm": {"ablation": "without_both", "copies": 2}},
    "discount head": {"world_model": {"discount_head": True}, "idm": {"overshoot": 1}},
    "arxiv": {"dreamer": {"mean_scale": 0.0, "init_std": 0.0, "discount_weights": False, "value_target_every": 9}},
}


def copies(setup: Setup) -> int:
    idm = setup.config.idm
    return 0 if idm.ablation in ("without_derived_memory", "without_both") else idm.copies


def starts(setup: Setup) -> Belief:
    """The originals and their derived memories behind them; mean and std of a start do not matter."""
    original, idm = setup.start(), setup.config.idm
    if copies(setup) == 0:
        return original
    noise = [array(setup.noise[name]) for name in ("derived_deter", "derived_stoch")]
    deter, stoch = reference.derive_memory(original, idm.sigma_h, idm.sigma_n, idm.copies, *noise)
    deter, stoch = np.concatenate([original.deter, deter]), np.concatenate([original.stoch, stoch])
    return Belief(deter, stoch, stoch, stoch)


def probability(setup: Setup, before: np.ndarray, action: np.ndarray, after: np.ndarray) -> np.ndarray:
    return sigmoid(elu_mlp(setup.behavior.evaluator, np.concatenate([before, action, after], axis=-1))[..., 0])


def weights(setup: Setup, dream: Imagined) -> np.ndarray:
    """w · D: row tau's w from z_tau, the action taken there (which led to z_{tau + 1}) and z_{tau + 1}."""
    discounts = setup.weights(dream)
    if setup.config.idm.ablation == "without_evaluator":
        return discounts
    real = np.zeros_like(discounts)
    for tau in range(len(real)):
        real[tau] = probability(setup, dream.feature[tau], dream.action[tau + 1], dream.feature[tau + 1])
    assert real.std() > 0.01
    return reference.reliability_weight(real) * discounts


def evaluator_loss(setup: Setup) -> float:
    """Over every segment, sequences of one start row side by side."""
    overshoot, action = setup.config.idm.overshoot, array(setup.batch.action).transpose(1, 0, 2)
    noise, posterior = array(setup.noise["overshoot"]), setup.real()
    real, fake = [], []
    for segment, start in enumerate(reference.segment_starts(LENGTH, overshoot)):
        for sequence in range(BATCH):
            own = noise[:, segment * BATCH + sequence]
            steps = reference.real_segment(posterior, action, sequence, start, overshoot)
            dreamt = reference.overshoot_segment(setup.rssm, posterior, action, sequence, start, own)
            real.append(probability(setup, *steps))
            fake.append(probability(setup, *dreamt))
    return -float(np.log(np.stack(real)).mean() + np.log(1.0 - np.stack(fake)).mean())


@pytest.fixture(params=CASES)
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup("idm", **CASES[request.param])


def test_imagination_runs_from_originals_and_derived_memories(setup: Setup) -> None:
    expected = len(setup.start().deter) * (1 + copies(setup))
    assert setup.noise["prior"].shape[1] == len(starts(setup).deter) == expected


def test_the_actor_loss_weights_each_return_by_how_real_its_step_looks(setup: Setup) -> None:
    dream = setup.imagine(start=starts(setup))
    expected = -(weights(setup, dream) * setup.returns(dream)).mean()
    np.testing.assert_allclose(setup.losses()["actor"].item(), expected, rtol=1e-10)


def test_the_value_loss_weights_each_error_by_how_real_its_step_looks(setup: Setup) -> None:
    dream = setup.imagine(start=starts(setup))
    expected = (weights(setup, dream) * setup.squared_error(dream, setup.returns(dream))).mean()
    np.testing.assert_allclose(setup.losses()["value"].item(), expected, rtol=1e-10)


def test_the_evaluators_loss_tells_real_segments_from_overshoot_ones(setup: Setup) -> None:
    if setup.config.idm.ablation == "without_evaluator":
        assert "evaluator" not in setup.losses()
        return
    np.testing.assert_allclose(setup.losses()["evaluator"].item(), evaluator_loss(setup), rtol=1e-9)


def test_the_actors_gradient_takes_the_weights_as_given(setup: Setup) -> None:
    actor, start = setup.behavior.acting, starts(setup)
    gradients = setup.gradients("actor", actor)
    base = setup.imagine(start=start)
    given = weights(setup, base)
    check_slopes(
        actor, gradients, lambda: -float((given * setup.returns(setup.imagine(base.seen, start))).mean()), entries=2
    )


def test_the_values_gradient_takes_weights_and_returns_as_given(setup: Setup) -> None:
    base = setup.imagine(start=starts(setup))
    given, returns, head = weights(setup, base), setup.returns(base), setup.behavior.value
    gradients = setup.gradients("value", head)
    check_slopes(head, gradients, lambda: float((given * setup.squared_error(base, returns)).mean()), entries=2)


@pytest.mark.parametrize("case", ["default", "three copies", "without both"])
def test_the_evaluators_gradient_follows_its_loss(case: str) -> None:
    setup = Setup("idm", **CASES[case])
    evaluator = setup.behavior.evaluator
    check_slopes(evaluator, setup.gradients("evaluator", evaluator), lambda: evaluator_loss(setup), entries=2)


def test_each_loss_trains_only_what_it_is_of(setup: Setup) -> None:
    losses = setup.losses()
    modules = {name: group.module for name, group in setup.behavior.groups().items()}
    assert losses.keys() == modules.keys()
    for name, loss in losses.items():
        posterior = torch.autograd.grad(loss, list(setup.posterior), allow_unused=True, retain_graph=True)
        assert posterior == (None,) * 4, name
        assert reached(loss, modules[name]) == {key for key, _ in modules[name].named_parameters()}
        if name != "actor":
            assert reached(loss, setup.world_model) == set()
            assert reached(loss, modules["actor"]) == set()
        if "evaluator" in modules and name != "evaluator":
            assert reached(loss, modules["evaluator"]) == set()
        if name == "evaluator":
            assert reached(loss, modules["value"]) == set()
