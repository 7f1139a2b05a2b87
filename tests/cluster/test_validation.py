"""What is refused before a run begins: impossible and absurd values, each in a line that names the flag."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.validation import AT_MOST, MAY_BE_ZERO, flag, leaves, validate
from common.config import Config
from common.errors import UserError
from common.presets import PRESETS, paper


def changed(name: str, value: Any, base: Config | None = None) -> Config:
    """The configuration with one field, by its dotted name, replaced."""
    config = paper() if base is None else base
    room, _, field = name.rpartition(".")
    if not room:
        return dataclasses.replace(config, **{field: value})
    return dataclasses.replace(config, **{room: dataclasses.replace(getattr(config, room), **{field: value})})


def as_given(name: str, number: float) -> Any:
    """The number as the field holds it."""
    return (number,) if isinstance(dict(leaves(paper()))[name], tuple) else number


def refusal(config: Config) -> str:
    """Why the configuration is refused; empty when it is not."""
    try:
        validate(config)
    except UserError as error:
        return str(error)
    return ""


NUMBERS = [
    name
    for name, value in leaves(paper())
    if name in ("keep_at", "eval_rotation") or (isinstance(value, int | float) and not isinstance(value, bool))
]
FLOATS = [name for name in NUMBERS if name == "eval_rotation" or isinstance(dict(leaves(paper()))[name], float)]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_valid(name: str) -> None:
    validate(PRESETS[name]())


@pytest.mark.parametrize("name", NUMBERS)
def test_negative_numbers_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{flag(name)} must be (positive|zero or more), not -1"):
        validate(changed(name, as_given(name, -1)))


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_refused_unless_it_means_something(name: str) -> None:
    config = changed(name, as_given(name, 0))
    if name in MAY_BE_ZERO:
        if name != "replay.prefill":  # nothing could be drawn yet: the limiter refuses it with its own reason
            validate(config)
    else:
        with pytest.raises(UserError, match=rf"^{flag(name)} must be positive, not 0"):
            validate(config)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_that_are_not_finite_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^{flag(name)} must be a finite number, not -?(nan|inf)$"):
        validate(changed(name, as_given(name, value)))


@pytest.mark.parametrize("name", NUMBERS)
def test_absurd_numbers_are_refused_by_name(name: str) -> None:
    absurd = 10**400 if name not in FLOATS else 1e300
    with pytest.raises(UserError, match=rf"^{flag(name)} must be at most "):
        validate(changed(name, as_given(name, absurd)))


@pytest.mark.parametrize("name", sorted(AT_MOST))
def test_limits_are_of_fields_that_exist_and_let_the_limit_itself_pass(name: str) -> None:
    assert "must be at most" not in refusal(changed(name, as_given(name, AT_MOST[name])))


def test_fields_that_may_be_zero_exist() -> None:
    assert set(NUMBERS) >= MAY_BE_ZERO


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("algorithm", "dremer", "unknown algorithm 'dremer': did you mean dreamer?"),
        ("objective", "reconstrution", "unknown objective 'reconstrution': did you mean reconstruction?"),
        ("replay_store", "ldmb", "unknown replay store 'ldmb': did you mean lmdb?"),
        ("preset", "large", "unknown preset 'large': choose from"),
        ("algorithm", "", "unknown algorithm '': choose from"),
    ],
)
def test_unknown_choices_are_refused_with_the_nearest_and_all(name: str, value: str, hint: str) -> None:
    with pytest.raises(UserError, match="choose from") as raised:
        validate(changed(name, value))
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"horizon": 1}, "--horizon must be at least 2"),
        ({"training.batch_length": 1}, "--training.batch-length must be at least 2"),
        ({"training.batch_length": 502}, "longer than an episode of 501 rows"),
        ({"environment.time_limit": 90}, "longer than an episode of 46 rows"),
        ({"training.batch_size": 5000, "training.batch_length": 500}, "GiB of images is too large"),
        ({"replay.capacity": 4999}, "--replay.capacity 4999 is below --replay.prefill 5000"),
        (
            {"actors": 200, "replay.shards": 200, "replay.capacity": 200_000},
            "over 200 shards may never hold a whole window",
        ),
        ({"replay.sampling": "uniform_episode"}, "give at least"),
        ({"replay.shards": 4, "replay.recent_windows": 3}, "--replay.recent-windows 3 is below --replay.shards 4"),
        ({"learners": 2, "runtime": "inline"}, "--learners 2 needs --runtime ray"),
        ({"learners": 3}, "--learners 3: a batch of 50 sequences does not divide by it"),
        ({"learners": 8, "dreamer.doubled_batch": True}, "--learners 8: a batch of 100 sequences does not divide"),
        ({"device": "tpu"}, "--device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
    ],
)
def test_combinations_that_cannot_work_are_refused(changes: dict[str, Any], reason: str) -> None:
    config = paper()
    for name, value in changes.items():
        config = changed(name, value, config)
    with pytest.raises(UserError) as raised:
        validate(config)
    assert reason in str(raised.value)


@given(st.sampled_from(NUMBERS), st.one_of(st.integers(-(10**30), 10**30), st.floats()))
def test_any_number_in_any_field_is_taken_or_refused_in_one_line(name: str, number: float) -> None:
    assert "\n" not in refusal(changed(name, as_given(name, number)))


def test_leaves_names_every_field_once() -> None:
    names = [name for name, _ in leaves(paper())]
    assert len(names) == len(set(names))
    assert {"task", "replay.chunk_rows", "world_model.free_nats", "eval_rotation"} <= set(names)
    assert flag("replay.chunk_rows") == "--replay.chunk-rows"
