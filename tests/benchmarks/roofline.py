"""What one update of Dreamer has to compute and to move, counted by hand; docs/performance.md shows it.

    python -m tests.benchmarks.roofline

prints the note's tables. A product of (m × k) and (k × n) is 2mkn operations; it reads both factors and writes its
result once. What is done element by element is not counted: well fused, it rides along.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from common.config import Config
from common.presets import paper, small

ACTIONS = 6  # walker's and cheetah's
# Operations and bytes a second. CPU: measured with large products and copies on both cores. H200: NVIDIA's data sheet
# (H200 Tensor Core GPU, SXM), without the sparsity that its tensor figures assume.
CPU = {"float32": 139e9, "bf16": 387e9}
H200 = {"float32": 67e12, "tf32": 494.5e12, "bf16": 989.5e12}
H200_BYTES = 4.8e12
BYTES = {"float32": 4, "tf32": 4, "bf16": 2}
ADAM_BYTES = 28  # a parameter: it, its gradient and two moments read, all but the gradient written, in float32


class Work(NamedTuple):
    """Operations forward and backward, elements moved (of 4 or 2 bytes), and parameters that are trained."""

    forward: float = 0.0
    backward: float = 0.0
    elements: float = 0.0
    parameters: float = 0.0

    @property
    def operations(self) -> float:
        """Both directions."""
        return self.forward + self.backward

    def __add__(self, other: tuple[float, ...]) -> Work:  # type: ignore[override]  # a sum, no concatenation
        return Work(*(mine + its for mine, its in zip(self, other, strict=True)))


def product(forward: float, inputs: float, outputs: float, weights: float, gradients: int, trained: bool) -> Work:
    """A layer that takes `forward` operations; each of its `gradients` (to inputs, to weights) takes as many again."""
    moved = (1 + gradients) * (inputs + outputs + weights)
    return Work(forward, gradients * forward, moved, weights if trained else 0)


def dense(rows: float, i: int, o: int, gradients: int = 2, trained: bool = True) -> Work:
    """A dense layer i → o."""
    return product(2 * rows * i * o, rows * i, rows * o, i * o, gradients, trained)


def mlp(rows: float, sizes: list[int], to_inputs: bool, to_weights: bool) -> Work:
    """Dense layers in a row; gradients reach the inputs, the weights, both or neither."""
    total = Work()
    for place, (i, o) in enumerate(pairwise(sizes)):
        past = to_inputs or (to_weights and place > 0)
        total += dense(rows, i, o, int(past) + int(to_weights), to_weights)
    return total


def times(count: float, work: Work) -> Work:
    """The same, again and again, with the same parameters."""
    return Work(*(count * part for part in work[:3]), work.parameters)


def encoder(rows: int, depth: int) -> Work:
    """Convolutions, kernel 4, stride 2, of 64 × 64 images; no gradient goes to the images."""
    sizes, total, height = [3, depth, 2 * depth, 4 * depth, 8 * depth], Work(), 64
    for place, (i, o) in enumerate(pairwise(sizes)):
        out = (height - 4) // 2 + 1
        operations = 2 * rows * out**2 * 16 * i * o
        gradients = 2 if place else 1
        total += product(operations, rows * height**2 * i, rows * out**2 * o, 16 * i * o, gradients, True)
        height = out
    return total


def decoder(rows: int, depth: int, feature: int) -> Work:
    """A dense layer, and transposed convolutions, stride 2, from one pixel to 64 × 64."""
    total = dense(rows, feature, 32 * depth)
    channels, kernels, height = [32 * depth, 4 * depth, 2 * depth, depth, 3], [5, 5, 6, 6], 1
    for (i, o), kernel in zip(pairwise(channels), kernels, strict=True):
        out = 2 * (height - 1) + kernel
        weights = kernel**2 * i * o
        total += product(2 * rows * height**2 * weights, rows * height**2 * i, rows * out**2 * o, weights, 2, True)
        height = out
    return total


def update(config: Config, actions: int = ACTIONS) -> dict[str, Work]:
    """The parts of one update of Dreamer with reconstruction, as `benchmark learner --profile` names them."""
    if config.algorithm != "dreamer" or config.objective != "reconstruction" or config.world_model.discount_head:
        raise ValueError("counted for dreamer with reconstruction and no discount head")
    sizes, dreamer = config.world_model, config.dreamer
    batch, length, horizon = config.sequences, config.training.batch_length, config.horizon
    rows, dreamt = batch * length, batch * length  # N = B · L states, each of which is dreamt on from
    deter, stoch, hidden, embed = sizes.deter, sizes.stoch, sizes.hidden, 32 * sizes.depth
    feature = stoch + deter

    def prior(rows: int, gradients: int, to_action: bool) -> Work:
        work = dense(rows, stoch, hidden, gradients, gradients == 2)
        work += dense(rows, actions, hidden, gradients - (0 if to_action else 1), gradients == 2)
        work += dense(rows, hidden, 3 * deter, gradients, gradients == 2)
        work += dense(rows, deter, 3 * deter, gradients, gradients == 2)
        work += dense(rows, deter, hidden, gradients, gradients == 2)
        return work + dense(rows, hidden, 2 * stoch, gradients, gradients == 2)

    posterior = dense(batch, deter + embed, hidden) + dense(batch, hidden, 2 * stoch)
    actor_sizes = [feature, *[dreamer.units] * dreamer.actor_layers, 2 * actions]
    actor = mlp(dreamt, actor_sizes, to_inputs=False, to_weights=True)
    value_sizes = [feature, *[dreamer.units] * dreamer.value_layers, 1]
    reward_sizes = [feature, *[sizes.reward_units] * sizes.reward_layers, 1]
    heads = mlp(rows, reward_sizes, to_inputs=True, to_weights=True)
    # Of imagined states: gradients go through reward and value to the actor, and to the value head's own weights.
    heads += mlp(horizon * dreamt, reward_sizes, to_inputs=True, to_weights=False)
    heads += mlp(horizon * dreamt, value_sizes, to_inputs=True, to_weights=False)
    learnt = mlp((horizon - 1) * dreamt, value_sizes, to_inputs=False, to_weights=True)
    heads += learnt._replace(forward=0.0)  # the same values as above
    return {
        "encoder": encoder(rows, sizes.depth),
        "rssm": times(length, prior(batch, 2, to_action=False) + posterior),
        "decoder": decoder(rows, sizes.depth, feature),
        "imagination": times(horizon, prior(dreamt, 1, to_action=True) + actor),
        "heads": heads,
    }


def table(config: Config) -> str:
    """Operations and bytes of each part, as Markdown."""
    lines = [
        "| part | forward GFLOP | backward GFLOP | both | share | GB moved, float32 | FLOP per byte |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    parts = update(config)
    whole = sum(parts.values(), Work())
    for name, work in [*parts.items(), ("all", whole)]:
        lines.append(
            f"| {name} | {work.forward / 1e9:,.2f} | {work.backward / 1e9:,.2f} | {work.operations / 1e9:,.2f} "
            f"| {work.operations / whole.operations:.1%} | {4 * work.elements / 1e9:,.2f} "
            f"| {work.operations / work.elements / 4:,.0f} |"
        )
    adam = ADAM_BYTES * whole.parameters
    lines.append(f"| optimiser ({whole.parameters / 1e6:,.2f} M weights) | | | | | {adam / 1e9:,.2f} | |")
    return "\n".join(lines)


def floors(config: Config) -> str:
    """The least time of an update on each machine, as Markdown: of each part the longer of computing and moving."""
    lines = [
        "| machine, precision | peak TFLOP/s | all operations at peak, ms | all bytes, ms | floor, ms | updates/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    parts = update(config)
    whole = sum(parts.values(), Work())
    for name, peak in CPU.items():
        computing = whole.operations / peak
        lines.append(
            f"| this CPU, {name} | {peak / 1e12:,.3f} | {1e3 * computing:,.0f} | | {1e3 * computing:,.0f} "
            f"| {1 / computing:,.2f} |"
        )
    for name, peak in H200.items():
        moving = BYTES[name] * whole.elements + ADAM_BYTES * whole.parameters
        floor = ADAM_BYTES * whole.parameters / H200_BYTES + sum(
            max(work.operations / peak, BYTES[name] * work.elements / H200_BYTES) for work in parts.values()
        )
        lines.append(
            f"| H200, {name} | {peak / 1e12:,.0f} | {1e3 * whole.operations / peak:,.2f} "
            f"| {1e3 * moving / H200_BYTES:,.2f} | {1e3 * floor:,.2f} | {1 / floor:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    for config in (paper(), small()):
        print(f"{config.preset}\n\n{table(config)}\n\n{floors(config)}\n")
