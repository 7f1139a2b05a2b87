"""What a learner on a GPU tells of it."""

from __future__ import annotations

import pytest
import torch

from learner.gpu import gpu_use


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_and_load_are_those_of_the_device() -> None:
    held = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    use = gpu_use(torch.device("cuda"))
    assert use is not None
    assert held.nbytes < use.used_bytes < use.total_bytes
    assert use.busy is None or 0 <= use.busy <= 1


def test_a_cpu_has_none() -> None:
    assert gpu_use(torch.device("cpu")) is None
