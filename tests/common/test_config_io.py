from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Config
from common.config_io import from_dict, load_config, to_dict, to_yaml
from common.errors import UserError
from common.presets import PRESETS


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_survives_a_round_trip_through_yaml(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset]()
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


@given(
    rate=st.floats(allow_nan=False),
    angles=st.lists(st.floats(-180, 180), max_size=3),
    counts=st.lists(st.integers(0, 10**12), max_size=3),
    task=st.text(st.characters(blacklist_categories=("Cs", "Cc"))),
)
def test_numbers_and_text_survive_yaml_exactly(
    rate: float, angles: list[float], counts: list[int], task: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = Config(train_ratio=rate, eval_rotation=tuple(angles), keep_at=tuple(counts), task=task)
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_a_partial_mapping_keeps_the_base_elsewhere() -> None:
    base = PRESETS["smoke"]()
    merged = from_dict({"seed": 3, "world_model": {"deter": 64}}, base)
    assert merged == replace(base, seed=3, world_model=replace(base.world_model, deter=64))


def test_lists_become_tuples_and_whole_numbers_become_floats() -> None:
    config = from_dict({"eval_rotation": [0, 5], "keep_at": [100], "train_ratio": 1})
    assert config.eval_rotation == (0.0, 5.0)
    assert all(type(angle) is float for angle in config.eval_rotation)
    assert config.keep_at == (100,)
    assert type(config.train_ratio) is float


def test_nested_keys_are_written_as_nested_mappings() -> None:
    assert to_dict(Config())["replay"]["chunk_rows"] == 50
    assert to_dict(Config(keep_at=(1, 2)))["keep_at"] == [1, 2]


def test_scientific_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("world_model: {learning_rate: 6e-4}\ndreamer: {actor_learning_rate: 8E-5}\n")
    config = load_config(path)
    assert config.world_model.learning_rate == 6e-4
    assert config.dreamer.actor_learning_rate == 8e-5


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"sede": 1}, "unknown field sede; did you mean seed?"),
        ({"world_model": {"detre": 1}}, "unknown field world_model.detre; did you mean world_model.deter?"),
        ({"qqqq": 1}, "unknown field qqqq"),
        ({"seed": True}, "seed: True is no whole number"),
        ({"seed": 1.5}, "seed: 1.5 is no whole number"),
        ({"train_ratio": "fast"}, "train_ratio: 'fast' is no number"),
        ({"train_ratio": False}, "train_ratio: False is no number"),
        ({"task": 3}, "task: 3 is no string"),
        ({"dreamer": {"doubled_batch": 1}}, "dreamer.doubled_batch: 1 is no true or false"),
        ({"runtime": "spark"}, "runtime: 'spark' is none of ray, inline"),
        ({"keep_at": [1, "two"]}, "keep_at[1]: 'two' is no whole number"),
        ({"keep_at": 7}, "keep_at: 7 is no list"),
        ({"replay": 3}, "replay: 3 is no mapping of fields"),
        ({"seed": None}, "seed: None is no whole number"),
        ({"train_ratio": 10**400}, "train_ratio: a whole number of 1329 bits is too large"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_dotted_name(mapping: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(mapping)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["seed: [1", "- 1\n- 2\n", "", "sede: 1", "\x00"])
def test_a_bad_file_is_one_line_that_names_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml: ") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_yaml_tags_cannot_build_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("task: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(path)
