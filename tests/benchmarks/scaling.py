"""Draws what `dreamfleet benchmark system --simulate-actors N --json` found for several N.

```
PYTHONPATH=. python -m tests.benchmarks.scaling 8.json 32.json 256.json --out docs/results/scaling
```

OUT.png: the curve. OUT_memory.png and OUT_queues.png: what every process held, and what waited, in the run with the
most actors.
OUT.json: all figures, without the samples. Prints the lines of a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

from tests.benchmarks import memory_figure


def draw_curve(runs: list[dict[str, Any]], file: Path) -> None:
    """Speed, the coordinator's load and the weights' lag by the number of actors."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    actors = [run["simulated_actors"] for run in runs]
    figure, ((speed, volume), (load, lag)) = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    speed.plot(actors, [run["env_steps_per_second"] for run in runs], "o-", label="inserted")
    asked = [run["simulated_actors"] * run["steps_per_second_of_an_actor"] for run in runs]
    speed.plot(actors, asked, "k--", lw=0.8, label="as many as the environments allow")
    speed.set(ylabel="environment steps a second")
    speed.legend(fontsize="small")
    volume.plot(actors, [run["inserted_bytes_per_second"] / 1e6 for run in runs], "o-")
    volume.set(ylabel="inserted MB a second")
    load.plot(actors, [run["coordinator_cpu_share"] for run in runs], "o-", label="coordinator's process")
    load.plot(actors, [run["coordinator_loop_cpu_share"] for run in runs], "o-", label="its event loop")
    load.plot(actors, [run["shards_cpu_share"] for run in runs], "o-", label="the replay shard")
    load.set(ylabel="cores")
    load.legend(fontsize="small")
    lag.plot(actors, [run["weights_lag_seconds_max"] for run in runs], "o-")
    lag.axhline(2.0, color="k", ls="--", lw=0.8, label="aim")
    lag.set(ylabel="old weights, at most s", ylim=(0, None))
    lag.legend(fontsize="small", loc="lower right")
    for axes in (speed, volume, load, lag):
        axes.set(xlabel="simulated actors")
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def draw_queues(run: dict[str, Any], file: Path) -> None:
    """What is under way and waits, over time."""
    from matplotlib import pyplot

    samples = run["samples"]
    minutes = [(seconds - samples["seconds"][0]) / 60 for seconds in samples["seconds"]]
    figure, (calls, held) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    calls.plot(minutes, samples["coordinator_calls_underway"], label="the coordinator's")
    calls.plot(minutes, samples["insert_calls_underway"], label="inserts")
    calls.set(ylabel="calls under way", ylim=(0, None))
    held.plot(minutes, [count / 1e6 for count in samples["object_store_bytes"]], label="in the object store")
    held.plot(minutes, [count / 1e6 for count in samples["insert_bytes_waiting"]], label="waiting in collectors")
    held.set(ylabel="MB", ylim=(0, None))
    for axes in (calls, held):
        axes.set(xlabel="minutes")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: one line a run."""
    columns = {
        "actors": lambda run: f"{run['simulated_actors']}",
        "environment steps/s": lambda run: f"{run['env_steps_per_second']:,.0f}",
        "inserted, MB/s": lambda run: f"{run['inserted_bytes_per_second'] / 1e6:.1f}",
        "collectors' wait for inserts": lambda run: f"{run['insert_wait_share']:.0%}",
        "calls/s": lambda run: f"{run['coordinator_calls_per_second']:.0f}",
        "CPU a call, ms": lambda run: f"{1e3 * run['coordinator_cpu_seconds_per_call']:.2f}",
        "coordinator, cores": lambda run: f"{run['coordinator_cpu_share']:.2f}",
        "shard, cores": lambda run: f"{run['shards_cpu_share']:.2f}",
        "old weights, at most s": lambda run: f"{run['weights_lag_seconds_max']:.2f}",
        "load average": lambda run: f"{run['load_average']:.0f}",
    }
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(show(run) for show in columns.values())} |" for run in runs)])


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = sorted((json.loads(file.read_text()) for file in arguments.files), key=lambda run: run["simulated_actors"])
    draw_curve(runs, arguments.out.with_suffix(".png"))
    largest = runs[-1]
    title = f"{largest['simulated_actors']} simulated actors, {largest['seconds'] / 60:.0f} minutes"
    memory_figure.draw(largest["samples"]["memory"], title, arguments.out.with_name(f"{arguments.out.name}_memory.png"))
    draw_queues(largest, arguments.out.with_name(f"{arguments.out.name}_queues.png"))
    kept = [{name: value for name, value in run.items() if name not in ("samples", "resident_bytes")} for run in runs]
    arguments.out.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
    print(table(runs))
    print()
    print(memory_figure.table(largest["samples"]["memory"]))


if __name__ == "__main__":
    main()
