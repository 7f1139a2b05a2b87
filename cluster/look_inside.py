"""`dreamfleet inspect`: what a run's world model predicts on episodes it has never seen."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from actors.rendering import probe
from cluster.flags import parse
from cluster.inspection.confidence import inspect_confidence
from cluster.inspection.memories import inspect_memories
from cluster.inspection.prediction import inspect_prediction
from cluster.inspection.reliability import evaluator_of, inspect_reliability
from cluster.inspection.statistics import resample
from cluster.inspection.subject import Subject, longest_episode, play
from cluster.inspection.tables import tables
from cluster.runtimes.roles import learner_threads
from common.checkpoint import Checkpoint
from common.config import Config
from common.durable import replace_durably
from common.errors import UserError
from common.run_folder import RunFolder
from common.seeding import derive_seed
from common.sequence import Rows

NUMBERS = "inspection.json"


@dataclass(frozen=True)
class InspectArguments:
    """Shows what a run's world model predicts, with numbers, on fresh episodes that its policy plays."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    out: Path = Path("figures")
    """Folder for the figures and inspection.json; made if it is not there."""
    beside: Path | None = None
    """A second run of the task, whose decoded noisy states are shown beside the first's (IDM, figure 1)."""
    checkpoint: int | None = None
    """Updates of the run's checkpoint to look into; the newest complete one if not given."""
    episodes: int = 5
    """Held-out episodes, played now by the checkpoint's policy with training noise."""
    seed: int = 0
    """Seed of episodes and samples."""
    context: int = 5
    """Images that the model sees before it predicts video."""
    predict: int = 45
    """Images that it predicts from actions alone; fewer where an episode has no more."""
    horizon: int = 0
    """Steps of the predictions whose confidence is held against their error; 0: the run's imagination horizon."""
    noise: float = 0.5
    """Standard deviation of the noise on the states in the picture of derived memories."""
    levels: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Standard deviations that are measured."""
    json: bool = False
    """Print inspection.json instead of tables."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(InspectArguments, "inspect", args)
    _validate(arguments)
    config, checkpoint = _open(arguments.run, arguments.checkpoint)
    horizon = arguments.horizon or config.horizon
    _validate_lengths(arguments, horizon, longest_episode(config))
    beside = _second(arguments.beside, config, checkpoint) if arguments.beside is not None else None
    subject = Subject.read(arguments.run, config, checkpoint)
    _make_folder(arguments.out)

    found = probe(config.task, config.environment)
    subject = subject.drawn_by(found.gl)
    beside = beside.drawn_by(found.gl) if beside is not None else None
    torch.set_num_threads(learner_threads(config))
    results = _inspect(subject, beside, arguments, horizon)
    text = json.dumps(results, indent=1, allow_nan=False)
    replace_durably(arguments.out / NUMBERS, f"{text}\n".encode())
    for part, why in results["skipped"].items():
        print(f"{part} skipped: {why}", file=sys.stderr)
    if arguments.json:
        print(text)
    else:
        for table in tables(results):
            Console().print(table)
        Console().print(f"figures and {NUMBERS}: {arguments.out}", soft_wrap=True)
    return 0


def _inspect(subject: Subject, beside: Subject | None, arguments: InspectArguments, horizon: int) -> dict[str, Any]:
    """Plays, makes every part that can be made, and returns all numbers as JSON values."""
    out, seed = arguments.out, arguments.seed
    with Console(stderr=True).status("playing held-out episodes") as status:
        episodes = play(subject, arguments.episodes, seed)
        shortest = min(map(len, episodes))
        if shortest <= max(arguments.context, horizon):
            raise UserError(
                f"an episode ended after {shortest} rows: too few for --context {arguments.context} and {horizon} "
                "steps of --horizon"
            )
        picks = resample(len(episodes), derive_seed(seed, "resamples"))
        skipped: dict[str, str] = {}
        results: dict[str, Any] = {
            **subject.describe(),
            "seed": seed,
            "episodes": [{"rows": len(episode), "return": float(episode.reward.sum())} for episode in episodes],
            "skipped": skipped,
        }
        if subject.draws_images:
            status.update("predicting video")
            results["prediction"] = inspect_prediction(
                subject, episodes, arguments.context, arguments.predict, seed, picks, out
            )
        else:
            skipped["prediction"] = _no_decoder(subject)
        subjects = [subject] if beside is None else [subject, beside]
        undrawn = [each for each in subjects if not each.draws_images]
        if undrawn:
            skipped["memories"] = _no_decoder(undrawn[0])
        else:
            status.update("decoding states with noise")
            shared = _of_both(episodes, play(beside, len(episodes), seed)) if beside is not None else episodes
            shared_picks = resample(len(shared), derive_seed(seed, "resamples"))
            results["memories"] = inspect_memories(
                subjects, shared, arguments.noise, arguments.levels, seed, shared_picks, out
            )
        status.update("holding confidence against error")
        results["confidence"] = inspect_confidence(subject, episodes, horizon, seed, picks, out)
        if evaluator_of(subject) is not None:
            status.update("judging transitions with each checkpoint's evaluator")
            checkpoints = _checkpoints(subject, episodes, seed)
            judged = inspect_reliability(checkpoints, seed, picks, out)
            if judged is not None:
                results["evaluator"] = judged
            else:
                skipped["evaluator"] = f"no window holds a segment of {subject.config.idm.overshoot} steps"
    return results


def _of_both(first: Sequence[Rows], second: Sequence[Rows]) -> list[Rows]:
    """Episodes of both models' policies in turn, so that neither is judged on its own ground alone."""
    return [episode for pair in zip(first, second, strict=True) for episode in pair]


def _checkpoints(subject: Subject, episodes: Sequence[Rows], seed: int) -> Iterator[tuple[Subject, Sequence[Rows]]]:
    """Every whole checkpoint of the run, oldest first, with episodes that it plays itself."""
    for checkpoint in RunFolder(subject.run).whole_checkpoints():
        if checkpoint.updates == subject.checkpoint.updates:
            yield subject, episodes
        else:
            other = Subject.read(subject.run, subject.config, checkpoint)
            yield other, play(other, len(episodes), seed)


def _validate(arguments: InspectArguments) -> None:
    for name, least, most in (("episodes", 1, 1000), ("context", 1, 10_000), ("predict", 1, 10_000)):
        value = getattr(arguments, name)
        if not least <= value <= most:
            raise UserError(f"--{name} must be between {least} and {most}, not {value}")
    for name in ("seed", "horizon"):
        if getattr(arguments, name) < 0:
            raise UserError(f"--{name} must be zero or more, not {getattr(arguments, name)}")
    if not arguments.levels:
        raise UserError("--levels needs at least one standard deviation")
    for name, value in (("noise", arguments.noise), *(("levels", level) for level in arguments.levels)):
        if not 0 < value <= 100:
            raise UserError(f"--{name} must be a standard deviation above 0 and at most 100, not {value}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"--out {arguments.out} is no folder")


def _validate_lengths(arguments: InspectArguments, horizon: int, rows: int) -> None:
    """Holds what is asked for against the longest episode that the task's time limit allows."""
    if arguments.context >= rows:
        raise UserError(f"--context {arguments.context} leaves nothing to predict: an episode has {rows} rows")
    if horizon >= rows:
        raise UserError(f"--horizon {horizon} is longer than an episode: it has {rows - 1} steps")


def _open(run: Path, updates: int | None) -> tuple[Config, Checkpoint]:
    """A run's configuration and checkpoint, the newest complete one unless an update count is given."""
    folder = RunFolder(run)
    config = folder.load_config()
    if updates is not None:
        return config, folder.checkpoint_at(updates)
    checkpoint = folder.newest_checkpoint()
    for damaged in folder.skipped:
        print(f"checkpoint {damaged} is damaged: using the one before it", file=sys.stderr)
    if checkpoint is None:
        raise UserError(f"{run} has no complete checkpoint yet")
    return config, checkpoint


def _second(run: Path, first: Config, first_checkpoint: Checkpoint) -> Subject:
    config, checkpoint = _open(run, None)
    for name, mine, theirs in (
        ("--task", first.task, config.task),
        ("--environment.action-repeat", first.environment.action_repeat, config.environment.action_repeat),
        ("--environment.rendering", first.environment.rendering, config.environment.rendering),
        ("actions", first_checkpoint.state["action_size"], checkpoint.state["action_size"]),
    ):
        if mine != theirs:
            raise UserError(f"--beside {run} does not fit: {name} is {theirs} there and {mine} here")
    return Subject.read(run, config, checkpoint)


def _no_decoder(subject: Subject) -> str:
    return f"the {subject.config.objective} objective of {subject.run} draws no images"


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
