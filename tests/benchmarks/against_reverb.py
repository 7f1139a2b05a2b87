"""The same workload on Dreamfleet's replay and on Reverb, in turn, in one run.

```
python3 -m venv reverb && reverb/bin/pip install 'dm-reverb[tensorflow]==0.14.0'
PYTHONPATH=. python -m tests.benchmarks.against_reverb reverb/bin/python --rounds 5
```

The workload: frames of a DeepMind Control task, windows of 50 rows, batches of 50. Every window can be drawn, so Reverb
holds an item a row (`insert_every_window`); with an item every 50 rows (`insert_every_50`) it would draw from one
window in fifty. Reverb keeps its rows in memory, Dreamfleet in an LMDB file that is flushed to the disk at each insert.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from actors.rendering import probe
from cluster.benchmarks.measure import interleaved, machine
from cluster.benchmarks.replay import BATCHES, Bench, frames_of
from cluster.runtimes.roles import Setting
from common.config import EnvironmentConfig
from common.presets import PRESETS

ROWS_HELD = 20_000
ROWS_INSERTED = 2_000


class Reverb:
    """The other half, in a process with another Python."""

    def __init__(self, python: str, frames: Path) -> None:
        side = Path(__file__).with_name("reverb_side.py")
        self.process = subprocess.Popen(
            [python, str(side), str(frames)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask("fill", ROWS_HELD)
        self.ask("sample", 10)

    def ask(self, *words: object) -> float:
        """Has it measure something."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Prints medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="of the environment in which Reverb is installed")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    paper = PRESETS["paper"]()
    config = dataclasses.replace(paper, environment=EnvironmentConfig(rendering="fast"))
    found = probe(config.task, config.environment)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(config, found.action_size, found.gl, Path(folder) / "replay", "cpu")
        frames = frames_of(setting)
        np.save(Path(folder) / "frames.npy", frames)
        bench, reverb = Bench(setting, frames), Reverb(arguments.python, Path(folder) / "frames.npy")
        sampling = {
            f"{name}_bytes_per_second": lambda take=take: take() * bench.batch_bytes
            for name, take in bench.measures.items()
            if name in ("service", "direct")
        }
        measures: dict[str, Callable[[], float]] = {
            **sampling,
            "reverb_bytes_per_second": partial(reverb.ask, "sample", BATCHES),
            "insert_rows_per_second": bench.measures["insert"],
            "reverb_insert_every_window_rows_per_second": partial(reverb.ask, "insert", ROWS_INSERTED, 1),
            "reverb_insert_every_50_rows_per_second": partial(reverb.ask, "insert", ROWS_INSERTED, 50),
        }
        medians = interleaved(measures, arguments.rounds)
        reverb.close()
        bench.close()
    print(json.dumps({**medians, "rounds": arguments.rounds, "machine": machine()}, indent=2))


main()
