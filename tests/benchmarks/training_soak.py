"""A training run, watched from outside: does the memory of any of its processes grow, and what does watching cost it?

```
PYTHONPATH=. python -m tests.benchmarks.training_soak --minutes 30 --out docs/results/training_soak -- --preset small
```

What follows `--` goes to `dreamfleet train`. The run is stopped as by Ctrl-C when the time is over, counted from its
first line of metrics.jsonl. Its /metrics is read as often as its memory, as Prometheus would. Writes OUT.json and
OUT.png and prints a table.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from cluster.benchmarks.measure import machine
from cluster.benchmarks.sampler import Sampler, growth
from common.run_folder import RunFolder
from tests.benchmarks import memory_figure

EVERY_SECONDS = 10.0


def watch(seconds: float, folder: Path, args: list[str]) -> Sampler:
    """Trains for so long; what was seen of it."""
    run = subprocess.Popen(
        [sys.executable, "-m", "cluster.main", "train", "--run-dir", str(folder), "--env-steps", "1000000000", *args]
    )
    while not (folder / "metrics.jsonl").exists():
        if run.poll() is not None:
            raise SystemExit(f"the run ended with {run.returncode} before it began")
        time.sleep(1.0)
    with Sampler(run.pid, EVERY_SECONDS, figures=lambda: scraped(folder)) as sampler:
        began = time.monotonic()
        while run.poll() is None and time.monotonic() - began < seconds:
            time.sleep(1.0)
    run.send_signal(signal.SIGINT)
    if code := run.wait():
        raise SystemExit(f"the run ended with {code}")
    return sampler


def scraped(folder: Path) -> dict[str, float]:
    """Reads the run's /metrics once: how many bytes came."""
    target = json.loads((folder / "metrics_target.json").read_text())[0]["targets"][0]
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=60) as answer:
        return {"metrics_bytes": float(len(answer.read()))}


def cpu(totals: dict[str, Any]) -> dict[str, float]:
    """CPU seconds by the run's own counters: of all roles, and of these what telemetry and supervision took."""
    seconds = Counter[str]()
    for name, *_, value in totals["counters"]:
        if name.endswith("cpu_seconds_total"):
            seconds[name] += value
    watching = seconds["telemetry_cpu_seconds_total"] + seconds["supervision_cpu_seconds_total"]
    return {**seconds, "share_of_telemetry_and_supervision": watching / seconds["cpu_seconds_total"]}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("args", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        sampler = watch(60 * arguments.minutes, folder, arguments.args)
        summary = json.loads((folder / "summary.json").read_text())
        used = cpu(RunFolder(folder).totals())
    series = sampler.series()
    found = {
        "args": arguments.args,
        "minutes": arguments.minutes,
        "env_steps": summary["env_steps"],
        "updates": summary["updates"],
        "machine": machine(),
        "cpu": used,
        "memory": {name: growth(held)._asdict() for name, held in series.items()},
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(found) + "\n")
    title = f"{arguments.minutes:g} minutes of training: {summary['env_steps']:,} environment steps, "
    memory_figure.draw(series, title + f"{summary['updates']:,} updates", arguments.out.with_suffix(".png"))
    print(memory_figure.table(series))
    print(f"telemetry and supervision: {used['share_of_telemetry_and_supervision']:.2%} of the CPU time")


if __name__ == "__main__":
    main()
