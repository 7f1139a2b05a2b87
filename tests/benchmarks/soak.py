"""A replay shard at full speed for a long time: does its memory, or its file, grow?

```
PYTHONPATH=. python -m tests.benchmarks.soak --minutes 30 --out docs/results/soak
```

One process inserts as fast as it is acknowledged and, in turn, takes batches through the service; the shard is at its
capacity all the time, so that it evicts as much as comes in. Every few seconds the memory of each process is read: its
own, without what it maps, which are pages of the shard's file and of Ray's object store that the kernel may take away.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import ray

from actors.rendering import probe
from cluster.benchmarks.measure import machine
from cluster.benchmarks.replay import chunks, frames_of
from cluster.benchmarks.sampler import Sampler, growth
from cluster.runtimes.ray_runtime import batches, connect, start_shard
from cluster.runtimes.ray_sink import RaySink
from cluster.runtimes.roles import Setting
from common.config import EnvironmentConfig
from common.presets import PRESETS
from replay_service.stores.lmdb import shard_folder
from tests.benchmarks import memory_figure

CAPACITY_ROWS = 40_000
EVERY_SECONDS = 5.0
ROWS_A_TURN = 2_000
BATCHES_A_TURN = 10


def soak(seconds: float) -> tuple[Sampler, Counter[str]]:
    """Inserts and samples for so long; what was seen meanwhile, and how much was done."""
    paper = PRESETS["paper"]()
    replay = dataclasses.replace(paper.replay, capacity=CAPACITY_ROWS * paper.environment.action_repeat)
    replay = dataclasses.replace(replay, reading="service")
    config = dataclasses.replace(paper, replay=replay, environment=EnvironmentConfig(rendering="fast"))
    found = probe(config.task, config.environment)
    done = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(config, found.action_size, found.gl, Path(folder), "cpu")
        source = chunks(frames_of(setting), setting.action_size, replay.chunk_rows)
        connect("", 3)
        shard = start_shard(setting, 0)
        sink = RaySink(shard, config.packs_images, config.redis_timeout)
        supply = batches(setting, [shard])
        data = shard_folder(Path(folder), 0) / "data.mdb"
        with Sampler(
            every=EVERY_SECONDS,
            figures=lambda: {**done, "file_bytes": data.stat().st_blocks * 512 if data.exists() else 0},
        ) as sampler:
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                for _ in range(ROWS_A_TURN // replay.chunk_rows):
                    sink.insert(next(source))
                sink.flush()
                done["rows_inserted"] += ROWS_A_TURN
                for _ in range(BATCHES_A_TURN):
                    next(supply)
                done["batches_sampled"] += BATCHES_A_TURN
        supply.close()
        ray.shutdown()
    return sampler, done


def main() -> None:
    """Writes OUT.json and OUT.png, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sampler, done = soak(60 * arguments.minutes)
    file = [(look.seconds, int(look.figures["file_bytes"])) for look in sampler.looks]
    series = {**sampler.series(), "the shard's file": file}
    found = {
        "capacity_rows": CAPACITY_ROWS,
        "minutes": arguments.minutes,
        **done,
        "machine": machine(),
        "memory": {name: growth(held)._asdict() for name, held in series.items()},
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(found) + "\n")
    title = f"{done['rows_inserted']:,} rows inserted and {done['batches_sampled']:,} batches sampled"
    memory_figure.draw(series, f"{title}, {CAPACITY_ROWS:,} rows kept", arguments.out.with_suffix(".png"))
    print(memory_figure.table(series))


if __name__ == "__main__":
    main()
