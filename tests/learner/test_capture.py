"""A captured update is the plain one, whatever happens around it: held to the bit with a recorder that needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

import pytest

from common.config import Config
from common.sequence import ROW_FIELDS, Rows
from learner.capture import WARM_UPS, Captured, Outcome, Work
from learner.learner import Learner
from tests.learner.test_sequence_losses import Source, prioritized
from tests.learner.tiny import ACTIONS, random_batches, tiny_config
from tests.learner.tiny_learner import EVERY_CHOICE, assert_equal, make_learner, parameters


class Rerun:
    """Does again what it recorded, reads and writes where a graph would, and counts."""

    def __init__(self) -> None:
        self.warm_ups = self.records = self.replays = 0

    def warm_up(self, work: Work) -> Outcome:
        self.warm_ups += 1
        return work()

    def record(self, work: Work) -> Work:
        self.records += 1
        kept: list[Outcome] = []

        def replay() -> Outcome:
            self.replays += 1
            outcome = work()
            if not kept:
                kept.append(outcome)
            for name, value in outcome.metrics.items():
                kept[0].metrics[name].copy_(value)
            if kept[0].by_sequence is not None and outcome.by_sequence is not None:
                kept[0].by_sequence.copy_(outcome.by_sequence)
            return kept[0]

        return replay


class Refuses(Rerun):
    """Cannot record."""

    def record(self, work: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is\ncapturing")


def capture(learner: Learner, recorder: Rerun) -> Rerun:
    learner.captured = Captured(learner.one_update, recorder)
    return recorder


def assert_same_run(learner: Learner, other: Learner, updates: int) -> None:
    """The same metrics at each update, and everything the same after them."""
    for _ in range(updates):
        assert learner.update(1).metrics == other.update(1).metrics
    assert_equal(parameters(learner), parameters(other))
    assert learner.state() == other.state()


CONFIGS = EVERY_CHOICE | {
    "every option": tiny_config(world_model={"discount_head": True}, dreamer={"value_target_every": 2}),
    "bf16": replace(tiny_config(), precision="bf16"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_a_captured_update_is_the_plain_one(config: Config) -> None:
    learner = make_learner(config)
    recorder = capture(learner, Rerun())
    assert_same_run(learner, make_learner(config), WARM_UPS + 4)
    assert (recorder.warm_ups, recorder.records, recorder.replays) == (WARM_UPS, 1, 4)


def test_several_updates_of_one_call_add_up_their_own_metrics() -> None:
    learner, plain = make_learner(), make_learner()
    capture(learner, Rerun())
    assert learner.update(WARM_UPS + 4).metrics == plain.update(WARM_UPS + 4).metrics


def test_metrics_of_an_update_stay_when_the_next_is_replayed() -> None:
    learner = make_learner()
    capture(learner, Rerun())
    learner.update(WARM_UPS + 1)
    first = learner.learn(next(learner.feed))
    before = {name: float(value) for name, value in first.items()}
    learner.learn(next(learner.feed))
    assert {name: float(value) for name, value in first.items()} == before


def test_noise_differs_between_replays() -> None:
    rows = next(random_batches())
    learner = Learner(tiny_config(world_model={"learning_rate": 0.0}), ACTIONS, iter([rows] * 20))
    capture(learner, Rerun())
    losses = [learner.update(1).metrics["model_loss"] for _ in range(WARM_UPS + 5)]
    assert len(set(losses)) == len(losses)


def test_saved_and_restored_in_the_middle_of_replays_it_goes_on_as_if_nothing_had_been() -> None:
    straight = make_learner()
    straight.update(12)
    learner = make_learner()
    recorder = capture(learner, Rerun())
    learner.update(6)
    files = learner.state()
    learner.update(2)
    learner.feed.batches = islice(random_batches(), 6, None)
    learner.restore(files)
    learner.update(6)
    assert recorder.records == 2, "what was recorded moved other moments than those that were restored"
    assert learner.state() == straight.state()


def some_short(count: int) -> Iterator[Rows]:
    """Batches of which `count` in the middle are a row shorter."""
    short = (Rows(*(getattr(rows, name)[:, :-1] for name in ROW_FIELDS)) for rows in random_batches(1))
    return chain(islice(random_batches(), 6), islice(short, count), random_batches(2))


def test_other_shapes_are_recorded_anew() -> None:
    learner, plain = (Learner(tiny_config(), ACTIONS, some_short(5)) for _ in range(2))
    recorder = capture(learner, Rerun())
    assert_same_run(learner, plain, 16)
    assert recorder.records == 3


def test_losses_of_sequences_come_back_from_replays() -> None:
    captured, plain = Source(), Source()
    learner = Learner(prioritized(), ACTIONS, captured)
    capture(learner, Rerun())
    learner.update(7)
    Learner(prioritized(), ACTIONS, plain).update(7)
    assert [(origin, losses.tolist()) for origin, losses in captured.told] == [
        (origin, losses.tolist()) for origin, losses in plain.told
    ]


def test_where_recording_fails_updates_go_on_and_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    learner = make_learner()
    capture(learner, Refuses())
    assert_same_run(learner, make_learner(), WARM_UPS + 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "dreamfleet: updates go on uncaptured, as with --compile none: operation not permitted when stream is capturing"
    ]


def test_on_a_cpu_nothing_is_captured() -> None:
    assert make_learner().captured is None
