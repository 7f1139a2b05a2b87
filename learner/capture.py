"""One update as one CUDA graph: its thousands of launches are recorded once and replayed as one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from learner.batch import Batch

WARM_UPS = 3


class Outcome(NamedTuple):
    """What an update leaves on the device.

    Attributes:
        metrics: detached scalars by name.
        by_sequence: (B,), what each sequence lost; None unless batches are drawn by it.
    """

    metrics: dict[str, Tensor]
    by_sequence: Tensor | None


Work = Callable[[], Outcome]
Update = Callable[[Batch, dict[str, Tensor]], Outcome]


class Recorder(Protocol):
    """Who can do work again without its Python."""

    def warm_up(self, work: Work) -> Outcome:
        """Does the work as it will be recorded, so that all that is made once is there."""

    def record(self, work: Work) -> Work:
        """Records the work without doing it. What is returned does it, and gives the same memory each time."""


class CudaGraphs:
    """Records work as a CUDA graph. Its intermediate tensors lie in memory that belongs to the graph.

    Args:
        device: of everything that the work touches.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, work: Work) -> Outcome:
        """On the stream that is recorded later: what PyTorch and the libraries make there stays there."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            outcome = work()
        present.wait_stream(self.stream)
        return outcome

    def record(self, work: Work) -> Work:
        """See `Recorder`. Other threads may go on using the device: they read the next batches."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(self.stream),  # left even where a capture that failed does not leave it
            torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
        ):
            outcome = work()

        def replay() -> Outcome:
            graph.replay()
            return outcome

        return replay


class Captured:
    """An update that is recorded at the shapes it comes in, and replayed on memory that stays where it is.

    The first calls at new shapes are warm-ups: real updates, done plainly. Then one is recorded, and from there on a
    call copies its batch and noise to where the recording reads them, replays, and copies metrics out. Noise comes from
    outside, so that random numbers are those of the plain update. Parameters and optimiser state must stay where they
    are in memory; whoever moves them says `forget`.

    Where recording fails, one line says so and updates go on plainly.

    Args:
        update: without looks at the device's values, and without random numbers of its own.
        recorder: records it.
    """

    def __init__(self, update: Update, recorder: Recorder) -> None:
        self.update = update
        self.recorder: Recorder | None = recorder
        self.forget()

    def forget(self) -> None:
        """The next call begins anew."""
        self.shapes: object = None
        self.inputs: tuple[Batch, dict[str, Tensor]] | None = None
        self.recording: Work | None = None
        self.warm_ups = 0

    def __call__(self, batch: Batch, noise: dict[str, Tensor]) -> Outcome:
        """One update."""
        if self.recorder is None:
            return self.update(batch, noise)
        work = partial(self.update, *self._placed(batch, noise))
        if self.warm_ups < WARM_UPS:
            self.warm_ups += 1
            return self.recorder.warm_up(work)
        if self.recording is None:
            try:
                self.recording = self.recorder.record(work)
            except RuntimeError as error:
                why = " ".join(str(error).split())[:200]
                print(f"dreamfleet: updates go on uncaptured, as with --compile none: {why}", file=sys.stderr)
                self.forget()
                self.recorder = None
                return self.update(batch, noise)
        return _copy(self.recording())

    def _placed(self, batch: Batch, noise: dict[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
        """Batch and noise, where the recording reads them."""
        given = {**batch._asdict(), **{f"noise {name}": tensor for name, tensor in noise.items()}}
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in given.items()}
        if self.inputs is None or self.shapes != shapes:
            self.forget()
            self.shapes = shapes
            self.inputs = batch.map(torch.empty_like), {name: torch.empty_like(each) for name, each in noise.items()}
        for place, tensor in zip([*self.inputs[0], *self.inputs[1].values()], given.values(), strict=True):
            place.copy_(tensor, non_blocking=True)
        return self.inputs


def _copy(outcome: Outcome) -> Outcome:
    """The same in memory of its own, which the next replay leaves alone; all metrics in one copy."""
    values = torch.stack(list(outcome.metrics.values())).unbind()
    by_sequence = None if outcome.by_sequence is None else outcome.by_sequence.clone()
    return Outcome(dict(zip(outcome.metrics, values, strict=True)), by_sequence)
