"""The evaluator's verdicts on held-out transitions."""

from __future__ import annotations

from dataclasses import replace

import torch

from common.sequence import Rows
from learner.batch import Batch
from learner.behaviors.idm import Idm
from learner.foresight import observe
from learner.reliability import judge
from learner.world_model.kl import gaussian_kl
from tests.learner.tiny import random_rows, randomise, tiny_config
from tests.learner.tiny_learner import make_learner


def test_verdicts_are_those_of_each_transition_by_itself() -> None:
    config = tiny_config()
    learner = make_learner(replace(config, algorithm="idm", idm=replace(config.idm, overshoot=2)))
    randomise(learner.modules, size=0.3)
    learner.modules.requires_grad_(False)
    model, behavior = learner.world_model, learner.behavior
    assert isinstance(behavior, Idm)
    assert behavior.evaluator is not None
    rows = random_rows(0)
    long = Rows(*(part.repeat(2, 1) if part.ndim > 1 else part for part in vars(rows).values()))  # 8 rows, 3 segments
    batch = Batch.from_rows(long, torch.device("cpu"))
    count, length = batch.reward.shape
    stoch = model.rssm.stoch_size
    found = judge(model, behavior.evaluator, batch, 2, torch.Generator().manual_seed(5))

    generator = torch.Generator().manual_seed(5)
    posterior, prior = observe(model, batch, torch.randn(length, count, stoch, generator=generator))
    noise = torch.randn(2, 3 * count, stoch, generator=generator)
    torch.testing.assert_close(found.kl, gaussian_kl(posterior, prior))
    assert found.real.shape == found.fake.shape == (2, 3 * count)
    for segment in range(3):
        for sequence in range(count):
            column = segment * count + sequence
            fake = posterior.map(lambda part, s=segment, b=sequence: part[2 * s, b : b + 1])
            for step in range(2):
                row = 2 * segment + step
                action = batch.action[sequence, row + 1 : row + 2]
                before, after = (posterior.feature[r, sequence : sequence + 1] for r in (row, row + 1))
                assert found.real[step, column] == (behavior.evaluator(before, action, after) > 0).item()
                predicted = model.rssm.prior_step(fake, action, noise[step, column : column + 1])
                logit = behavior.evaluator(fake.feature, action, predicted.feature)
                assert found.fake[step, column] == (logit <= 0).item()
                fake = predicted
