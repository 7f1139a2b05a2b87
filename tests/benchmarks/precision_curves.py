"""Loss curves of each number format on the same batches and the same noise, from the same initial parameters.

```
dreamfleet train --preset small --env-steps 20000 --run-dir runs/recorded
PYTHONPATH=. python -m tests.benchmarks.precision_curves runs/recorded --updates 400 --out docs/results/precision
```

The batches are drawn from a finished run's replay. Two learners part ways in time whatever it is that parts them: how
far other noise parts two of one format is drawn beside it. Writes OUT.json and OUT.png and prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import matplotlib
import torch

from cluster.benchmarks.measure import machine
from cluster.runtimes.assembly import HostAssembly
from cluster.runtimes.inline_batches import InlineBatches
from cluster.runtimes.roles import learner_threads
from common.config import Config, Precision
from common.run_folder import RunFolder
from common.seeding import derive_seed
from common.sequence import Rows
from learner.device_rows import OnDevice
from learner.learner import Learner
from replay_service.replay import open_replay

LOSSES = ("model_loss", "image_loss", "reward_loss", "kl", "actor_loss", "value_loss")
OTHER_NOISE = ", other noise"
TAIL = 4
"""The table compares the means of the last quarter."""

Curves = Mapping[str, list[float]]


def recorded(folder: RunFolder, config: Config, action_size: int, count: int) -> list[Rows | OnDevice]:
    """The batches that a learner of this run would draw from its replay."""
    shards = [open_replay(config, folder.replay, shard, action_size, "") for shard in range(config.replay.shards)]
    leading = (config.sequences, config.training.batch_length)
    memory = HostAssembly(lambda: Rows.empty(leading, action_size))
    drawn = InlineBatches(shards, memory, derive_seed(config.seed, "shards"), config.redis_timeout)
    batches = [deepcopy(next(drawn)) for _ in range(count)]  # whose memory is used again
    for shard in shards:
        shard.close()
    return batches


def curves(
    config: Config, action_size: int, batches: Sequence[Rows | OnDevice], device: str, other_noise: bool
) -> Curves:
    """Every metric of every update."""
    learner = Learner(config, action_size, iter(batches), device)
    if other_noise:
        learner.generator.manual_seed(derive_seed(config.seed, "other noise"))
    metrics = [learner.update(1).metrics for _ in batches]
    return {name: [update[name] for update in metrics] for name in metrics[0]}


def smooth(values: Sequence[float], over: int = 10) -> list[float]:
    """Means of so many updates each."""
    return [statistics.fmean(values[first : first + over]) for first in range(0, len(values), over)]


def draw(found: Mapping[str, Curves], names: Sequence[str], title: str, file: Path) -> None:
    """A panel a loss, a line a format."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(11, 6), layout="constrained", squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        for kind, values in found.items():
            shown = smooth(values[name])
            again = kind.endswith(OTHER_NOISE)
            colour = f"C{list(found).index(kind.removesuffix(OTHER_NOISE))}"
            line = {"color": colour, "ls": ":" if again else "-"}
            axes.plot([10 * place + 5 for place in range(len(shown))], shown, label=kind, lw=1.3, **line)
        axes.set(title=name.replace("_", " "), xlabel="updates")
        axes.grid(alpha=0.3)
        if name == "value_loss":  # it may rise a hundredfold before it falls
            axes.set_yscale("log")
    panels.flat[0].legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


def table(found: Mapping[str, Curves], names: Sequence[str]) -> str:
    """Markdown: means of the last quarter, and how far they are from float32's."""
    exact = found["float32"]
    lines = [f"| loss | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for name in names:
        last = {kind: statistics.fmean(values[name][-len(values[name]) // TAIL :]) for kind, values in found.items()}
        spread = abs(statistics.fmean(exact[name])) or 1.0
        cells = [f"{value:.4g} ({abs(value - last['float32']) / spread:.2%})" for value in last.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run)
    config = folder.load_config()
    checkpoint = folder.newest_checkpoint()
    if checkpoint is None:
        raise SystemExit(f"{arguments.run} has no checkpoint")
    action_size = int(checkpoint.state["action_size"])
    torch.set_num_threads(learner_threads(config))
    batches = recorded(folder, config, action_size, arguments.updates)
    formats: list[Precision] = ["float32", "bf16"]
    if arguments.device.startswith("cuda"):  # on a CPU it is float32
        formats.append("tf32")
    found: dict[str, Curves] = {}
    for other_noise in (False, True):
        for precision in formats:
            formatted = dataclasses.replace(config, precision=precision)
            name = precision + OTHER_NOISE if other_noise else precision
            found[name] = curves(formatted, action_size, batches, arguments.device, other_noise)
    names = [name for name in LOSSES if name in found["float32"]]
    record = {
        "preset": config.preset,
        "task": config.task,
        "algorithm": config.algorithm,
        "updates": arguments.updates,
        "device": arguments.device,
        "machine": machine(),
        "means_of_ten": {kind: {name: smooth(values[name]) for name in names} for kind, values in found.items()},
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(record) + "\n")
    draw(found, names, f"{config.preset}, {config.task}: the same batches and noise", arguments.out.with_suffix(".png"))
    print(table(found, names))


if __name__ == "__main__":
    main()
