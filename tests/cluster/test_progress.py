import io
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.progress import Progress, Snapshot, duration
from common.config import Config

SNAPSHOT = Snapshot(
    env_steps=412_300,
    updates=41_230,
    env_steps_per_second=1204.2,
    updates_per_second=12.1,
    last_return=640.1,
    best_return=812.4,
    last_evaluation=702.9,
    replay_env_steps=824_600,
    replay_capacity=2_000_000,
    waiting="learner waits for actors",
    weights_version=412,
    elapsed_seconds=2530,
    seconds_left=3731,
    restarts=2,
    model_loss=12.31,
    kl=3.214,
)
START = replace(
    SNAPSHOT,
    env_steps=0,
    updates=0,
    last_return=None,
    best_return=None,
    last_evaluation=None,
    seconds_left=None,
    model_loss=None,
    kl=None,
    weights_version=0,
)


def _plain() -> Console:
    return Console(file=io.StringIO(), width=60)


def _terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, record=True, _environ={})


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_lines_come_at_their_interval_and_the_last_state_is_never_lost() -> None:
    console = _plain()
    with Progress(Config(), 1_000_000, console, plain_seconds=10) as progress:
        for seconds in range(26):
            progress.update(replace(SNAPSHOT, elapsed_seconds=seconds))
    times = [line.split()[0] for line in _text(console).splitlines()[1:]]
    assert times == ["0:00:00", "0:00:10", "0:00:20", "0:00:25"]


def test_a_state_that_was_printed_is_not_printed_again_at_the_end() -> None:
    console = _plain()
    with Progress(Config(), 1_000_000, console) as progress:
        progress.update(SNAPSHOT)
    assert len(_text(console).splitlines()) == 2


def test_plain_columns_stay_in_place_and_lines_are_never_wrapped() -> None:
    console = _plain()
    with Progress(Config(), 1_000_000, console, plain_seconds=0) as progress:
        progress.update(START)
        progress.update(SNAPSHOT)
        progress.update(replace(SNAPSHOT, env_steps=1_000_000, env_steps_per_second=9, last_return=-3.25))
    lines = _text(console).splitlines()[1:]
    assert len(lines) == 3
    for word in ("steps", "updates", "return", "eval", "replay", "learner waits"):
        assert len({line.index(word) for line in lines}) == 1
    assert "\x1b" not in _text(console)


def test_the_first_plain_line_names_the_run() -> None:
    console = _plain()
    with Progress(Config(task="cheetah_run", algorithm="idm", seed=3), 10, console):
        pass
    assert _text(console) == "cheetah_run · idm · reconstruction · seed 3\n"


def test_the_panel_shows_every_figure() -> None:
    console = _terminal()
    with Progress(Config(), 1_000_000, console) as progress:
        progress.update(SNAPSHOT)
    shown = console.export_text()
    for text in (
        "walker_walk · dreamer · reconstruction · seed 0",
        "41.2%  412,300 of 1,000,000 steps  1:02:11 left",
        "640.1 last",
        "812.4 best",
        "702.9 evaluation",
        "1,204 steps/s",
        "12.1 updates/s",
        "41,230 updates",
        "12.3 loss",
        "3.21 KL",
        "v412 weights",
        "824,600 steps held",
        "41% full",
        "2 restarts",
        "learner waits for actors · 0:42:10 elapsed",
    ):
        assert text in shown


def test_a_panel_without_figures_yet_shows_dashes_and_the_random_policy() -> None:
    console = _terminal()
    with Progress(Config(), 1_000_000, console) as progress:
        progress.update(START)
    shown = console.export_text()
    assert "– last" in shown
    assert "– evaluation" in shown
    assert "random weights" in shown
    assert "None" not in shown
    assert "left" not in shown


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_the_panel_fits_its_terminal(width: int) -> None:
    console = _terminal(width)
    with Progress(Config(), 1_000_000, console) as progress:
        progress.update(SNAPSHOT)
    assert max(map(len, console.export_text().splitlines())) <= width


def test_a_run_past_its_end_is_not_more_than_whole() -> None:
    console = _plain()
    with Progress(Config(), 1000, console) as progress:
        progress.update(replace(SNAPSHOT, env_steps=1008))
    assert "100.0%" in _text(console)


def test_messages_stay_word_for_word_in_both_modes() -> None:
    text = "evaluation [5°] mean 512.2 :smile: [bold]not markup[/bold]"
    for console in (_plain(), _terminal()):
        with Progress(Config(), 1_000_000, console) as progress:
            progress.update(SNAPSHOT)
            progress.message(text)
        assert f"0:42:10  {text}" in (console.export_text() if console.record else _text(console))


def test_an_error_leaves_the_terminal_as_it_was() -> None:
    console = _terminal()
    progress = Progress(Config(), 1_000_000, console)

    def fail() -> None:
        with progress:
            progress.update(SNAPSHOT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert _text(console).rstrip().endswith("\x1b[?25h")


def test_durations_read_as_a_clock() -> None:
    assert [duration(seconds) for seconds in (0, 59.9, 3600, 86_399, 360_000)] == [
        "0:00:00",
        "0:00:59",
        "1:00:00",
        "23:59:59",
        "100:00:00",
    ]
