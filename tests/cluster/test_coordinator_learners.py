"""Runs with several learners, over simulated roles: one of the learners is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.run_folder import RunFolder
from tests.cluster.expectations import assert_complete
from tests.cluster.simulated import Faults, config, simulate
from tests.cluster.simulated_roles import Disk

TWO = config(learners=2)
RESUMES = "the same command resumes, or one with other --learners"


@pytest.mark.parametrize("learners", [2, 1])
def test_a_lost_learner_stops_the_run_with_all_that_was_learnt_and_it_resumes(tmp_path: Path, learners: int) -> None:
    disk = Disk()
    with pytest.raises(UserError) as stopped:
        simulate(TWO, tmp_path, faults=Faults(loses={7}), disk=disk)
    newest = RunFolder(tmp_path).newest_checkpoint()
    assert newest is not None
    assert newest.updates % TWO.training.checkpoint_every, "written because of it"
    assert newest.read("parameters.safetensors") == str(newest.updates).encode()
    assert str(stopped.value) == (
        f"learner 2 of 2 died, and the run has stopped; its checkpoint is at {newest.updates} updates; {RESUMES}"
    )
    again = config(learners=learners)
    run = simulate(again, tmp_path, disk=disk)
    assert f"{newest.updates} updates" in run.text
    assert_complete(run, again)


def test_the_first_learners_death_stops_the_run_with_its_newest_checkpoint(tmp_path: Path) -> None:
    disk = Disk()
    with pytest.raises(UserError) as stopped:
        simulate(TWO, tmp_path, faults=Faults(dies={("learner", "update"): {9}}), disk=disk)
    newest = RunFolder(tmp_path).newest_checkpoint()
    assert newest is not None
    assert str(stopped.value) == (
        f"learner 1 of 2 died, and the run has stopped; its checkpoint is at {newest.updates} updates; {RESUMES}"
    )
    assert_complete(simulate(TWO, tmp_path, disk=disk), TWO)


def test_a_learner_that_is_lost_before_the_first_checkpoint_is_said_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^learner 1 of 2 died, and the run has stopped; it has no checkpoint yet; "):
        simulate(TWO, tmp_path, faults=Faults(dies={("learner", "update"): {0}}))
