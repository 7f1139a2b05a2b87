from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from learner.batch import Batch
from learner.optimisation import Optimiser
from tests.learner.reference.adam import ReferenceAdam
from tests.learner.reference.layers import array
from tests.learner.tiny import BATCH, LENGTH, random_rows, tiny_config
from tests.learner.tiny_learner import make_learner

RATE, EPSILON = 1e-2, 1e-7
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def module(layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 2).double().to(memory_format=layout)


def gradients_of_steps(steps: int, layout: torch.memory_format = torch.contiguous_format) -> list[list[torch.Tensor]]:
    """The second step's gradient is large, the others' small."""
    generator = torch.Generator().manual_seed(1)
    scale = [1.0, 100.0, 1.0, 0.01, 1.0]
    return [
        [
            (scale[step] * torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)).to(memory_format=layout),
            scale[step] * torch.randn(4, generator=generator, dtype=torch.float64),
        ]
        for step in range(steps)
    ]


@pytest.mark.parametrize("clip", [5.0, 1e9])
@pytest.mark.parametrize("of_kernel", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_steps_are_adams_on_clipped_gradients_however_they_lie_in_memory(
    clip: float, of_kernel: str, of_gradient: str
) -> None:
    layer = module(LAYOUTS[of_kernel])
    optimiser = Optimiser(layer, RATE, EPSILON, clip)
    reference = ReferenceAdam([array(p) for p in layer.parameters()], RATE, EPSILON, clip)
    for gradients in gradients_of_steps(5, LAYOUTS[of_gradient]):
        norm = reference.step([array(g) for g in gradients])
        np.testing.assert_allclose(optimiser.step(gradients).item(), norm, rtol=1e-9)
        for actual, expected in zip(layer.parameters(), reference.parameters, strict=True):
            np.testing.assert_allclose(array(actual), expected, rtol=1e-6, atol=1e-9)


def test_the_learners_updates_are_adams_for_every_parameter() -> None:
    config = tiny_config(world_model={"depth": 2})
    learner = make_learner(config)
    rates = {
        "model": config.world_model.learning_rate,
        "actor": config.dreamer.actor_learning_rate,
        "value": config.dreamer.value_learning_rate,
    }
    references = {
        name: ReferenceAdam(
            [array(p) for p in learner.optimisers[name].parameters.values()],
            rate,
            config.training.adam_epsilon,
            config.training.gradient_clip,
        )
        for name, rate in rates.items()
    }
    for update in range(2):
        batch = Batch.from_rows(random_rows(update), torch.device("cpu"))
        random_state = learner.generator.get_state()
        losses, *_ = learner.losses(batch, learner.draw_noise(BATCH, LENGTH))
        for name, reference in references.items():
            reference.step([array(g) for g in learner.optimisers[name].gradients(losses[name])])
        learner.generator.set_state(random_state)
        learner.learn(batch)
        for name, reference in references.items():
            for (parameter, actual), expected in zip(
                learner.optimisers[name].parameters.items(), reference.parameters, strict=True
            ):
                # A step is about as long as its rate; float32 gradients near epsilon may turn a little.
                np.testing.assert_allclose(array(actual), expected, atol=0.02 * rates[name], err_msg=parameter)


def test_gradients_are_of_the_optimisers_own_parameters_alone() -> None:
    own, other = module(), module()
    image = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    loss = (own(image) * other(image)).sum()
    gradients = Optimiser(own, RATE, EPSILON, 100.0).gradients(loss)
    assert [tuple(g.shape) for g in gradients] == [(4, 3, 2, 2), (4,)]
    assert all(p.grad is None for p in [*own.parameters(), *other.parameters()])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_restored_optimiser_goes_on_as_if_nothing_had_happened(layout: str) -> None:
    steps = gradients_of_steps(5, LAYOUTS[layout])
    straight, resumed = module(LAYOUTS[layout]), module(LAYOUTS[layout])
    optimiser = Optimiser(straight, RATE, EPSILON, 5.0)
    for gradients in steps[:3]:
        optimiser.step([g.clone() for g in gradients])
    resumed.load_state_dict(straight.state_dict())
    successor = Optimiser(resumed, RATE, EPSILON, 5.0)
    successor.restore({name: tensor.clone().contiguous() for name, tensor in optimiser.state().items()})
    for gradients in steps[3:]:
        optimiser.step([g.clone() for g in gradients])
        successor.step([g.clone() for g in gradients])
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
