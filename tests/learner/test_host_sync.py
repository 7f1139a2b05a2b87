from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.config import Config
from learner.batch import Batch
from tests.learner.tiny import random_batches, tiny_config
from tests.learner.tiny_learner import EVERY_CHOICE, make_learner


class HostSyncError(Exception):
    """An operation that waits for the device to know a value or a shape."""


class NoHostSync(TorchDispatchMode):
    """Refuses every operation whose result the host must read before it can go on."""

    SYNCS = frozenset(
        {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim"}
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in self.SYNCS or by_mask:
            raise HostSyncError(name)
        return func(*args, **(kwargs or {}))


CONFIGS = EVERY_CHOICE | {
    "every option": tiny_config(world_model={"discount_head": True}, dreamer={"value_target_every": 2})
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_an_update_never_waits_for_the_device(config: Config) -> None:
    learner = make_learner(config)
    batches = [Batch.from_rows(rows, torch.device("cpu")) for rows in islice(random_batches(), 2)]
    with NoHostSync():
        for batch in batches:
            metrics = learner.learn(batch)
    assert all(isinstance(value, torch.Tensor) and value.shape == () for value in metrics.values())


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: bool(x[0] > 0), lambda x: x[x > 0], lambda x: x.nonzero()],
    ids=["item", "branch", "mask", "nonzero"],
)
def test_the_watch_for_host_syncs_catches_one(wait: Any) -> None:
    with NoHostSync(), pytest.raises(HostSyncError):
        wait(torch.ones(3))
