"""What IDM asks of the world model, and what its ablations leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import Batch
from learner.behaviors.idm import Idm
from learner.world_model import WorldModel
from tests.learner.model_terms import check_model_slopes, make_model, reference_loss, reference_terms
from tests.learner.reference.idm import decoding_constraint
from tests.learner.reference.layers import array
from tests.learner.reference.vision import decode
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, tiny_config
from tests.learner.tiny_learner import assert_equal, make_learner, parameters

SETTINGS: dict[str, Any] = {"rho": 0.7, "delta": 0.52, "sigma_h": 0.5, "sigma_n": 0.3}
CONSTRAINED = {"none": True, "without_evaluator": True, "without_derived_memory": True, "without_both": False}


class Constrained:
    """A world model and IDM in float64, with the noise that disturbs its states."""

    def __init__(self, **settings: Any) -> None:
        self.config = tiny_config(algorithm="idm", idm=SETTINGS | settings)
        self.model, self.batch, self.noise = make_model()
        self.behavior = Idm(self.config, self.model.rssm.feature_size, ACTIONS)
        generator = torch.Generator().manual_seed(5)
        shapes = self.behavior.noise_shapes(BATCH, LENGTH, self.model.start_count(BATCH, LENGTH))
        self.disturbance = {
            name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()
        }

    def loss(self) -> torch.Tensor | None:
        model = self.model.loss(self.batch, self.noise)
        return self.behavior.model_loss(self.model, model, self.disturbance)[0]

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Drawn from each posterior state, sequence after sequence, and from its disturbed copy."""
        posterior = reference_terms(self.model, self.batch, self.noise).posterior
        deter, stoch = (part.swapaxes(0, 1).reshape(LENGTH * BATCH, -1) for part in (posterior.deter, posterior.stoch))
        idm, decoder = self.config.idm, self.model.objective.decoder
        disturbed_deter = deter + idm.sigma_h * array(self.disturbance["disturbed_deter"].flatten(0, 1))
        disturbed_stoch = stoch + idm.sigma_n * array(self.disturbance["disturbed_stoch"].flatten(0, 1))
        return (
            decode(decoder, np.concatenate([stoch, deter], axis=-1)),
            decode(decoder, np.concatenate([disturbed_stoch, disturbed_deter], axis=-1)),
        )

    def expected(self) -> float:
        return self.config.idm.rho * decoding_constraint(*self.pictures(), self.config.idm.delta)


def whole_loss(model: WorldModel, batch: Batch, noise: torch.Tensor, setup: Constrained) -> float:
    return reference_loss(model, batch, noise) + setup.expected()


def test_the_margin_divides_the_images_of_these_tests() -> None:
    drawn, disturbed = Constrained().pictures()
    distances = 0.5 * ((drawn - disturbed) ** 2).reshape(LENGTH * BATCH, -1).sum(-1)
    assert 0 < (distances > SETTINGS["delta"]).sum() < LENGTH * BATCH


@pytest.mark.parametrize("delta", [0.0, 0.52, 1e6])
def test_the_constraint_compares_each_state_with_its_disturbed_self(delta: float) -> None:
    setup = Constrained(delta=delta)
    actual = setup.loss()
    assert actual is not None
    np.testing.assert_allclose(actual.item(), setup.expected(), rtol=1e-6, atol=1e-9)


def test_the_constraints_gradient_runs_through_both_pictures_into_the_model() -> None:
    setup = Constrained(rho=50.0)  # so that it outweighs the images' own loss
    model = setup.model.loss(setup.batch, setup.noise)
    asked, _ = setup.behavior.model_loss(setup.model, model, setup.disturbance)
    assert asked is not None
    (model.loss + asked).backward()
    parts = ("objective.", "rssm.posterior", "rssm.cell")
    check_model_slopes(setup.model, lambda: whole_loss(setup.model, setup.batch, setup.noise, setup), parts)


@pytest.mark.parametrize(("ablation", "constrained"), CONSTRAINED.items())
def test_only_without_both_is_the_world_model_unconstrained(ablation: str, constrained: bool) -> None:
    assert (Constrained(ablation=ablation).loss() is not None) is constrained
    assert Constrained(ablation=ablation, rho=0.0).loss() is None


@pytest.mark.parametrize("ablation", CONSTRAINED)
def test_each_ablation_leaves_out_just_what_it_says(ablation: str) -> None:
    learner = make_learner(tiny_config(algorithm="idm", idm={"ablation": ablation, "copies": 2}))
    metrics = learner.update(1).metrics
    noise = learner.draw_noise(BATCH, LENGTH)
    derived = ablation in ("none", "without_evaluator")
    assert noise["prior"].shape[1] == BATCH * LENGTH * (3 if derived else 1)
    assert ("derived_deter" in noise) is ("derived_stoch" in noise) is derived
    evaluated = ablation != "without_evaluator"
    assert ("evaluator" in learner.optimisers) is ("evaluator_loss" in metrics) is ("overshoot" in noise) is evaluated
    assert any(name.startswith("behavior.evaluator.") for name in parameters(learner)) is evaluated
    assert ("decoding_constraint" in metrics) is ("disturbed_deter" in noise) is CONSTRAINED[ablation]


def test_idm_without_all_that_is_its_own_is_dreamer_to_the_bit() -> None:
    dreamer = make_learner()
    other = make_learner(tiny_config(algorithm="idm", idm={"copies": 0, "ablation": "without_evaluator", "rho": 0.0}))
    for _ in range(3):
        assert other.update(1).metrics == dreamer.update(1).metrics
    assert_equal(parameters(other), parameters(dreamer))
