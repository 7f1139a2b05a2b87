"""kill -9 of actor, shard, learner and Redis server, every ten seconds, while a real run goes on; and its accounts.

    python -m tests.system.chaos --minutes 10 --store redis --seed 1

The run is `dreamfleet train` in the Ray runtime, on the suite's own task. Its collectors write down, outside of the
store, what was acknowledged to them; its /metrics is read every second. When it has ended by itself, at its steps,
what is in the store is held against what was acknowledged, and what the run says
of itself against what was done to it.

Prints a table, and as JSON {"store", "seed", "minutes", "kills", "restarts", …, "problems"};
exit code 1 if there are any problems.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from common.run_folder import RunFolder
from common.sequence import Chunk
from replay_service.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.system.processes import Training
from tests.system.test_recovery import TASK, assert_whole, chunks_in, stored_chunks
from tests.system.witnessed import LEDGER, acknowledged, digest

ACTORS = 2
REPEAT = 2
ENVS_PER_ACTOR = 2
STEP_SECONDS = 0.1
PACE = ACTORS / STEP_SECONDS
"""Environment steps a second when nobody is down."""
KILL_SECONDS = 10.0
UNDISTURBED = 0.8
"""The run is as long as this part of the time takes when nobody is down."""
LAST_ENV_STEPS = 300
"""At the very end nobody is killed: who dies then has no need to start again."""
ANY_MOMENT = 1 / 3
"""How often somebody is killed who may not be back at work since the last time; who never is can end no run."""
LOOK_SECONDS = 1.0
AWAY_SECONDS = (0.0, 1.5)
PATIENCE = 300.0
ROLES = {"actor": "collector", "shard": "replay", "learner": "learner"}
VICTIMS = {"lmdb": ("actor", "shard", "learner"), "redis": ("actor", "shard", "learner", "server")}
AT_WORK = {
    "actor": "env_steps_total",
    "shard": "role_restarts_total replay",
    "learner": "updates_total",
    "server": "env_steps_total",
}
"""What has risen since a death when the victim is at work again; of a shard the run must have heard."""
OPTIONS = ["--actors", str(ACTORS), "--envs-per-actor", str(ENVS_PER_ACTOR), "--train-ratio", "0.05"]
OPTIONS += ["--eval-every", "1000", "--training.checkpoint-every", "10", "--replay.capacity", "10000000"]


@dataclass
class Report:
    """What was done to a run, and what became of it.

    Attributes:
        kills: by who was killed.
        restarts: by who was started again, as the run's summary tells. Of a shard, which Ray starts again, the run
            hears when it reports: one that dies again before that counts once.
        shards_at_work: how many of the shards' kills came when the run had heard of the last.
        band: the least and the most that the updates were ahead of the environment steps: 0 at the lower end of the
            limiter's band, 1 at its upper one, which the last update before the learner waits may pass.
        looks: how often /metrics was read.
        problems: what is wrong; nothing should be.
    """

    store: str
    seed: int
    minutes: float
    kills: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    shards_at_work: int = 0
    seconds: float = 0.0
    env_steps: int = 0
    updates: int = 0
    updates_done: int = 0
    acknowledged_chunks: int = 0
    stored_chunks: int = 0
    replay_ratio: float = 0.0
    band: tuple[float, float] = (0.5, 0.5)
    weights_version: int = 0
    looks: int = 0
    problems: list[str] = field(default_factory=list)

    def table(self) -> str:
        """For people."""
        rows = [
            (f"{who} killed", f"{self.kills.get(who, 0)}, started again {self.restarts.get(role, 0)}")
            for who, role in ROLES.items()
        ]
        if self.store == "redis":
            rows.append(("Redis server killed", str(self.kills.get("server", 0))))
        rows += [
            ("time", f"{self.seconds / 60:.1f} min"),
            ("environment steps", f"{self.env_steps:,}, where the run was to end"),
            ("updates", f"{self.updates:,}, and {self.updates_done - self.updates:,} that kills undid"),
            ("chunks", f"{self.stored_chunks:,} stored, {self.acknowledged_chunks:,} of them seen to be acknowledged"),
            (
                "replay ratio",
                f"{self.replay_ratio:.4f}; {self.band[0]:.2f}–{self.band[1]:.2f} of the way through the band",
            ),
            ("weights version", f"{self.weights_version:,}, never lower than before in {self.looks:,} looks"),
            ("problems", "; ".join(self.problems) or "none"),
        ]
        head = f"| {self.store} | seed {self.seed}, a kill every {KILL_SECONDS:.0f} s for {self.minutes:g} min |"
        return "\n".join([head, "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def run(store: str, minutes: float, seed: int, folder: Path) -> Report:
    """Trains, kills for so long, lets the run end, and looks at everything."""
    report = Report(store, seed, minutes)
    wanted = round(UNDISTURBED * PACE * 60 * minutes / REPEAT) * REPEAT
    with ExitStack() as undo:
        server = undo.enter_context(RedisServer(folder / "redis")) if store == "redis" else None
        where = ["--replay-store", "redis", "--redis-url", server.url, "--redis-timeout", "120"] if server else []
        args = [*TASK, "--task", "tests.system.witnessed:make", *OPTIONS, *where, "--env-steps", str(wanted)]
        environment = {LEDGER: str(folder / "acknowledged"), "TINY_STEP_SECONDS": str(STEP_SECONDS)}
        began = time.monotonic()
        with Training(folder / "run", args, folder / "log", **environment) as training:
            looks = Looks(training, report)
            training.until(lambda: any(line["updates"] > 5 for line in RunFolder(folder / "run").metrics()), PATIENCE)
            _kill(training, server, looks, report, wanted - LAST_ENV_STEPS)
            deadline = time.monotonic() + PATIENCE + 60 * minutes
            while training.driver.poll() is None and time.monotonic() < deadline:
                looks.look()
                time.sleep(LOOK_SECONDS)
            if training.driver.poll() != 0:
                report.problems.append(f"it ended with {training.driver.poll()}: {training.text[-2000:]}")
        report.seconds = round(time.monotonic() - began, 1)
        run_folder = RunFolder(folder / "run")
        if server is None:
            chunks = stored_chunks(run_folder.path)
        else:
            prefix = run_folder.load_config().redis_prefix
            chunks = chunks_in(RedisStore(server.url, "", f"dreamfleet:{prefix}:0:", action_size=1))
        _hold_to_account(report, run_folder, wanted, chunks, folder / "acknowledged", training.text)
    return report


class Looks:
    """Reads a run's /metrics now and then; what goes back, or leaves the band, is a problem."""

    def __init__(self, training: Training, report: Report) -> None:
        self.training = training
        self.report = report
        self.newest: dict[str, float] = {}

    def look(self) -> None:
        """Reads the page, if there is one now."""
        try:
            target = json.loads((self.training.folder / "metrics_target.json").read_text())[0]["targets"][0]
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                page = answer.read().decode()
        except (OSError, ValueError):
            return
        values = {
            " ".join([sample.name.removeprefix("dreamfleet_"), *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        if "replay_updates_ahead" not in values:
            return
        self.report.looks += 1
        for name in ("weights_version", "env_steps", "env_steps_total", "updates_total"):
            if values[name] < self.newest.get(name, 0.0):
                self.report.problems.append(f"{name} went back from {self.newest[name]} to {values[name]}")
        low, high = values["replay_updates_ahead_low"], values["replay_updates_ahead_high"]
        place = (values["replay_updates_ahead"] - low) / (high - low)
        self.report.band = (min(place, self.report.band[0]), max(place, self.report.band[1]))
        if not low - 1 <= values["replay_updates_ahead"] <= high + 1:
            self.report.problems.append(f"{values['replay_updates_ahead']:.1f} updates ahead, not in {low}…{high}")
        self.report.updates_done = int(values["updates_total"])
        self.newest = values


def _kill(training: Training, server: RedisServer | None, looks: Looks, report: Report, until: int) -> None:
    """Kills somebody every ten seconds, until the time is over or the run has come so far."""
    rng = random.Random(report.seed)
    killed: collections.Counter[str] = collections.Counter()
    at_kill: dict[str, float] = {}
    end, due = time.monotonic() + 60 * report.minutes, time.monotonic()
    victim, any_moment = "", False
    while time.monotonic() < end and looks.newest.get("env_steps", 0) < until and training.driver.poll() is None:
        looks.look()
        if time.monotonic() >= due:
            if not victim:
                victim, any_moment = rng.choice(VICTIMS[report.store]), rng.random() < ANY_MOMENT
            done = looks.newest.get(AT_WORK[victim], 0.0)
            at_work = done > at_kill.get(victim, -1.0)
            if (at_work or any_moment) and _kill_one(victim, training, server, rng):
                killed[victim] += 1
                at_kill[victim] = done
                report.shards_at_work += victim == "shard" and at_work
                victim, due = "", time.monotonic() + KILL_SECONDS
        time.sleep(min(LOOK_SECONDS, max(0.1, due - time.monotonic())))
    report.kills = dict(killed)


def _kill_one(who: str, training: Training, server: RedisServer | None, rng: random.Random) -> bool:
    """Whether there was such a process, which is gone now; the server is back."""
    if who == "server":
        assert server is not None
        server.kill()
        time.sleep(rng.uniform(*AWAY_SECONDS))
        server.start()
        return True
    candidates = training.roles(ROLES[who].capitalize())
    if not candidates:
        return False
    victim = rng.choice(candidates)
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    with suppress(psutil.NoSuchProcess):
        while victim.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
    return True


def _hold_to_account(
    report: Report, folder: RunFolder, wanted: int, chunks: list[Chunk], ledger: Path, text: str
) -> None:
    summary = folder.summary() or {}
    report.env_steps, report.updates = summary.get("env_steps", 0), summary.get("updates", 0)
    report.restarts = dict(summary.get("role_restarts", {}))
    report.weights_version = summary.get("weights_version", 0)
    report.replay_ratio = report.updates / max(1, report.env_steps)
    report.stored_chunks = len(chunks)
    stored = {chunk.key: digest(chunk.rows) for chunk in chunks}
    seen = acknowledged(ledger)
    report.acknowledged_chunks = len(seen)
    lost = [key for key in seen if key not in stored]
    changed = [key for key, value in seen.items() if stored.get(key, value) != value]
    env_steps = sum(chunk.rows.env_steps(REPEAT) for chunk in chunks)
    lines = folder.metrics()
    versions = [line["weights_version"] for line in lines if "weights_version" in line]
    evaluated = [line["weights_version"] for line in folder.evaluations()]
    killed = {role: report.kills.get(who, 0) for who, role in ROLES.items()}
    restarts = {role: report.restarts.get(role, 0) for role in ROLES.values()}
    checks = {
        "it did not finish": summary.get("finished") is True,
        f"it ended at {report.env_steps} environment steps, not {wanted}": 0
        <= wanted - report.env_steps
        < REPEAT * ENVS_PER_ACTOR,
        f"{len(chunks) - len(stored)} chunks are stored twice": len(stored) == len(chunks),
        f"{len(lost)} acknowledged chunks are lost: {lost[:3]}": not lost,
        f"{len(changed)} chunks are not what was acknowledged: {changed[:3]}": not changed,
        "nobody wrote down what was acknowledged": len(seen) > len(stored) / 2,
        f"{env_steps} environment steps are stored, {report.env_steps} counted": env_steps == report.env_steps,
        "the run says that rows were lost": "are lost with" not in text,
        f"killed {killed}, but restarts were {report.restarts}": all(
            killed[role] == restarts[role] for role in ("collector", "learner")
        )
        and report.shards_at_work <= restarts["replay"] <= killed["replay"],
        f"somebody else was started again: {report.restarts}": set(report.restarts) <= set(ROLES.values()),
        "a weights version is lower than one before": versions == sorted(versions) and evaluated == sorted(evaluated),
        "the summary's weights version is not the last": bool(versions) and report.weights_version >= versions[-1],
        "a traceback was printed": "Traceback" not in text,
    }
    report.problems += [problem for problem, holds in checks.items() if not holds]
    try:
        assert_whole(chunks)
    except AssertionError as error:
        report.problems.append(f"an episode is not whole: {error}")


def main() -> int:
    """Runs once; prints the table and the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", choices=sorted(VICTIMS), default="redis")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder to keep everything in")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    report = run(arguments.store, arguments.minutes, arguments.seed, folder)
    if not arguments.keep:
        shutil.rmtree(folder)
    print(report.table())
    print(json.dumps(asdict(report)))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
