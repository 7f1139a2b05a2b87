"""Ranks in processes of their own, over torch.distributed: NCCL between GPUs, gloo between CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.errors import UserError
from learner.ranks import Groups, RankLostError, Ranks

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
_BITS = {4: torch.int32, 8: torch.int64}


class DataParallel(Ranks):
    """One of R processes. They meet when they first need each other, so that one can be asked things alone before.

    Every rank must ask for the same things in the same order. A rank that is gone is an error in the others: at once
    where its connection closes, or after `timeout`.

    Args:
        rank: this one.
        size: R.
        device: where tensors are; its type chooses the backend.
        meet: gives the store through which the ranks find each other.
        timeout: how long one waits for another.
    """

    def __init__(
        self, rank: int, size: int, device: torch.device, meet: Callable[[], dist.Store], timeout: timedelta
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.meet = meet
        self.timeout = timeout

    def mean(self, share: Tensor) -> Tensor:
        """See `Ranks.mean`."""
        return _Mean.apply(share, self)

    def std(self, values: Tensor) -> Tensor:
        """See `Ranks.std`; of distances to the mean, because the mean of plain squares would cancel."""
        values = values.detach()
        return self.mean((values - self.mean(values.mean())).square().mean()).sqrt()

    def gather(self, rows: Tensor) -> Tensor:
        """See `Ranks.gather`."""
        return _Gather.apply(rows, self)

    def own(self, whole: Tensor, shape: Sequence[int], sequences: int) -> Tensor:
        """See `Ranks.own`."""
        for axis, length in enumerate(shape):
            if length != whole.shape[axis]:
                shares = whole.unflatten(axis, (-1, self.size, sequences))  # (…, n, R, B/R, …)
                return shares.select(axis + 1, self.rank).flatten(axis, axis + 1)
        return whole  # no part of it belongs to single sequences

    def average(self, gradients: Groups) -> Groups:
        """See `Ranks.average`; all of them travel as one tensor."""
        flat = torch.cat([gradient.reshape(-1) for group in gradients.values() for gradient in group])
        self.reduce(flat)
        flat /= self.size
        parts = iter(flat.split([gradient.numel() for group in gradients.values() for gradient in group]))
        return {name: [next(parts).view(gradient.shape) for gradient in group] for name, group in gradients.items()}

    def any(self, here: bool) -> bool:
        """See `Ranks.any`."""
        return bool(self.reduce(torch.tensor(int(here)), dist.ReduceOp.MAX))

    def assert_same(self, tensors: Iterable[Tensor]) -> None:
        """See `Ranks.assert_same`; compares the sums of their bits as whole numbers."""
        bits = [tensor.detach().view(_BITS[tensor.element_size()]).sum(dtype=torch.int64) for tensor in tensors]
        total = torch.stack(bits).sum().cpu()
        highest, lowest = self.reduce(torch.stack([total, -total]), dist.ReduceOp.MAX)
        if highest != -lowest:
            raise UserError(
                "the learners' parameters are no longer the same: all must compute on the same kind of device, with "
                "the same PyTorch and as many threads (--training.learner-threads)"
            )

    def reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
        """Reduces a tensor over the ranks, in place."""
        with self._together():
            dist.all_reduce(tensor, operation)
        return tensor

    def collect(self, rows: Tensor) -> Tensor:
        """All ranks' rows (n, …) → (R · n, …), without gradients."""
        out = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        with self._together():
            dist.all_gather_into_tensor(out, rows.contiguous())
        return out

    @contextmanager
    def _together(self) -> Iterator[None]:
        """The ranks have met; what goes wrong between them is a `RankLostError`."""
        try:
            if not dist.is_initialized():
                dist.init_process_group(
                    BACKENDS[self.device.type],
                    store=self.meet(),
                    rank=self.rank,
                    world_size=self.size,
                    timeout=self.timeout,
                )
            yield
        except RuntimeError as error:
            raise RankLostError(f"rank {self.rank} of {self.size}: {' '.join(str(error).split())[:200]}") from error


class _Mean(torch.autograd.Function):
    """The mean over ranks; its gradient passes unchanged (see `Ranks.mean`)."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, ranks: DataParallel) -> Tensor:
        return ranks.reduce(share.clone()) / ranks.size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Gather(torch.autograd.Function):
    """Everybody's rows; a row's gradient is the sum of those that the ranks have for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: DataParallel) -> Tensor:
        ctx.ranks = ranks
        return ranks.collect(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ranks = ctx.ranks
        total = ranks.reduce(gradient.contiguous().clone())
        return total.unflatten(0, (ranks.size, -1))[ranks.rank], None
