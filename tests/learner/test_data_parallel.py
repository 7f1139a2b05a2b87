"""Two learners that share each batch, in real processes, beside one that has all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.config import Config, ReplayConfig
from common.errors import NoWindowsError, UserError
from common.reports import UpdateReport
from common.sequence import Rows
from learner.ranks import ALONE, Ranks
from tests.learner.tiny_learner import parameters
from tests.learner.two_ranks import alone, batches, learner_of, run_both, whole_config

UPDATES = 20
HEAD = {"discount_head": True}
MAIN: dict[str, Config] = {
    "dreamer": whole_config(world_model={"free_nats": 0.05}),
    "bird": whole_config(algorithm="bird", bird={"entropy_weight": 0.1}),
    "idm": whole_config(algorithm="idm", world_model=HEAD, idm={"copies": 2, "delta": 0.0, "rho": 0.1}),
}
MORE: dict[str, Config] = {
    "contrastive": whole_config(objective="contrastive"),
    "contrastive, sums over states": whole_config(objective="contrastive", world_model={"nce_sum": "states"}),
    "dreamer, discount head": whole_config(world_model=HEAD),
    "dreamer, free nats by element": whole_config(world_model={"free_nats": 0.05, "kl_clip": "element"}),
    "dreamer, gradients clipped": replace(whole_config(), training=replace(whole_config().training, gradient_clip=0.5)),
    "bird, discount head": whole_config(algorithm="bird", world_model=HEAD, bird={"entropy": "gaussian"}),
    "no_value": whole_config(algorithm="no_value"),
    "planet": whole_config(algorithm="planet"),
    "reward_only": whole_config(objective="reward_only"),
    "soft_bird": whole_config(algorithm="soft_bird"),
}
CASES = {**MAIN, **MORE}
NAMES = [*MAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
Learnt = dict[str, tuple[dict[str, torch.Tensor], dict[str, float]]]


def learn(ranks: Ranks, cases: dict[str, Config]) -> Learnt:
    """Of each case parameters after 20 updates in float64, and metrics of the first one in float32."""
    learnt: Learnt = {}
    for name, config in cases.items():
        metrics = learner_of(config, ranks).update(1).metrics
        torch.set_default_dtype(torch.float64)
        learner = learner_of(config, ranks)
        learner.update(1)
        if ranks.rank == 0:  # what is asked of one rank waits for no other
            learner.reconstruction_strip()
            learner.weights()
            learner.state()
        assert learner.update(UPDATES - 1).updates == UPDATES - 1
        torch.set_default_dtype(torch.float32)
        learnt[name] = parameters(learner), metrics
    return learnt


class Results:
    """What two ranks learnt, and one: the cases of a group at once, when the first of them is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of: dict[str, tuple[Learnt, Learnt, Learnt]] = {}

    def __getitem__(self, case: str) -> tuple[Learnt, Learnt, Learnt]:
        if case not in self.of:
            group = MAIN if case in MAIN else MORE
            (self.folder / case).mkdir()
            results = (*run_both(self.folder / case, learn, group), alone(learn, group))
            self.of |= dict.fromkeys(group, results)
        return self.of[case]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", NAMES)
def test_two_ranks_learn_what_one_learns_from_the_same_batches_and_noise(case: str, results: Results) -> None:
    (shared, _), _, (plain, _) = (result[case] for result in results[case])
    assert shared.keys() == plain.keys()
    for name, value in shared.items():
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value.numpy(), plain[name].numpy(), rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("case", NAMES)
def test_the_losses_of_two_ranks_are_those_of_one(case: str, results: Results) -> None:
    (_, shared), _, (_, plain) = (result[case] for result in results[case])
    assert shared.keys() == plain.keys()
    for name, value in shared.items():
        assert value == pytest.approx(plain[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("case", NAMES)
def test_every_rank_has_the_same_parameters_to_the_bit(case: str, results: Results) -> None:
    (first, _), (second, _), _ = (result[case] for result in results[case])
    assert all(torch.equal(first[name], second[name]) for name in first)


class Scripted(Iterator[Rows]):
    """A rank's batches, but for what happens instead of some of them."""

    def __init__(self, ranks: Ranks, instead: dict[int, Callable[[], object]]) -> None:
        self.batches = batches(ranks)
        self.instead = instead
        self.asked = 0
        self.origin = 0
        self.told: list[tuple[int, NDArray[np.float32]]] = []

    def __next__(self) -> Rows:
        self.asked += 1
        if self.asked in self.instead:
            self.instead[self.asked]()
        self.origin += 1
        return next(self.batches)

    def prioritise(self, origin: int, losses: NDArray[np.float32]) -> None:
        self.told.append((origin, losses))


def raises(error: Exception) -> Callable[[], object]:
    def instead() -> object:
        raise error

    return instead


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


PLAIN = whole_config(algorithm="idm")


def meet_trouble(ranks: Ranks) -> tuple[list[int], list[str], dict[str, torch.Tensor]]:
    """Four calls; the second rank once has nothing to draw, and then twice may not, once after two updates."""
    no_store = raises(UserError("no store"))
    trouble = {2: raises(NoWindowsError()), 5: no_store, 6: no_store} if ranks.rank else {}
    learner = learner_of(PLAIN, ranks, Scripted(ranks, trouble))
    done, said = [], []
    for _ in range(4):
        try:
            done.append(learner.update(3).updates)
        except UserError as error:
            said.append(str(error))
    return done, said, parameters(learner)


def tell_losses(ranks: Ranks) -> list[tuple[int, NDArray[np.float32]]]:
    source = Scripted(ranks, {})
    learner_of(replace(PLAIN, replay=ReplayConfig(sampling="prioritized")), ranks, source).update(2)
    return source.told


def drift(ranks: Ranks) -> str:
    learner = learner_of(PLAIN, ranks)
    learner.update(1)
    with torch.no_grad():
        next(learner.modules.parameters()).add_(1e-6 * ranks.rank)
    try:
        learner.update(1)
    except UserError as error:
        return str(error)
    return ""


def stories(ranks: Ranks) -> tuple[Any, ...]:
    torch.set_default_dtype(torch.float64)
    try:
        return meet_trouble(ranks), tell_losses(ranks), drift(ranks)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Any]:
    return run_both(tmp_path_factory.mktemp("stories"), stories), alone(stories)


@pytest.mark.slow
def test_ranks_stop_together_where_one_cannot_draw_and_go_on_with_the_batches_they_have(
    told: tuple[list[Any], Any],
) -> None:
    (first, second), _ = told
    (done, said, ours), (other_done, other_said, theirs) = first[0], second[0]
    assert (done, said) == ([1, 2, 0, 3], [])
    assert (other_done, other_said) == ([1, 2, 3], ["no store"])
    torch.set_default_dtype(torch.float64)
    try:
        plain = learner_of(PLAIN, ALONE)
        plain.update(6)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in parameters(plain).items():
        assert torch.equal(ours[name], theirs[name])
        np.testing.assert_allclose(ours[name].numpy(), value.numpy(), rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_what_each_sequence_lost_is_told_by_the_rank_that_drew_it(told: tuple[list[Any], Any]) -> None:
    (first, second), plain = told
    assert [origin for origin, _ in first[1]] == [origin for origin, _ in second[1]] == [1, 2]
    for (_, ours), (_, theirs), (_, whole) in zip(first[1], second[1], plain[1], strict=True):
        np.testing.assert_allclose(np.concatenate([ours, theirs]), whole, rtol=1e-6)


@pytest.mark.slow
def test_parameters_that_are_no_longer_the_same_end_it_in_one_line(told: tuple[list[Any], Any]) -> None:
    (first, second), plain = told
    assert first[2] == second[2] != ""
    assert "the learners' parameters are no longer the same" in first[2]
    assert plain[2] == ""


def lose_the_second(ranks: Ranks) -> tuple[UpdateReport, int, dict[str, torch.Tensor]]:
    """The second rank is killed when it is to draw its fourth batch."""
    learner = learner_of(PLAIN, ranks, Scripted(ranks, {4: die} if ranks.rank else {}))
    report = learner.update(6)
    return report, learner.updates, parameters(learner)


@pytest.mark.slow
def test_a_rank_that_is_killed_leaves_the_other_between_two_updates(tmp_path: Path) -> None:
    survivor, killed = run_both(tmp_path, lose_the_second)
    assert killed is None
    report, updates, left = survivor
    assert report.lost.startswith("rank 0 of 2: ")
    assert report.updates == updates == 3
    (tmp_path / "again").mkdir()
    (_, _, whole), _ = run_both(tmp_path / "again", three_updates)
    assert all(torch.equal(left[name], whole[name]) for name in whole)


def three_updates(ranks: Ranks) -> tuple[UpdateReport, int, dict[str, torch.Tensor]]:
    learner = learner_of(PLAIN, ranks)
    return learner.update(3), learner.updates, parameters(learner)
