"""A training run, watched from outside: does the memory of any of its processes grow?

```
PYTHONPATH=. python -m tests.benchmarks.training_soak --minutes 30 --out docs/results/training_soak -- --preset small
```

What follows `--` goes to `dreamfleet train`. The run is stopped as by Ctrl-C when the time is over, counted from its
first line of metrics.jsonl. Writes OUT.json and OUT.png and prints a table.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.benchmarks.measure import machine
from cluster.benchmarks.sampler import Sampler, growth
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
    with Sampler(run.pid, EVERY_SECONDS) as sampler:
        began = time.monotonic()
        while run.poll() is None and time.monotonic() - began < seconds:
            time.sleep(1.0)
    run.send_signal(signal.SIGINT)
    if code := run.wait():
        raise SystemExit(f"the run ended with {code}")
    return sampler


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
    series = sampler.series()
    found = {
        "args": arguments.args,
        "minutes": arguments.minutes,
        "env_steps": summary["env_steps"],
        "updates": summary["updates"],
        "machine": machine(),
        "memory": {name: growth(held)._asdict() for name, held in series.items()},
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(found) + "\n")
    title = f"{arguments.minutes:g} minutes of training: {summary['env_steps']:,} environment steps, "
    memory_figure.draw(series, title + f"{summary['updates']:,} updates", arguments.out.with_suffix(".png"))
    print(memory_figure.table(series))


if __name__ == "__main__":
    main()
