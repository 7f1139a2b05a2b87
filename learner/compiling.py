"""`--compile`: the update captured on a GPU, its feed-forward networks compiled."""

from __future__ import annotations

import sys

import torch
from torch import nn

from common.config import Compile
from learner.capture import Captured, CudaGraphs, Update
from learner.networks import Decoder, Encoder, Mlp
from learner.ranks import ALONE, Ranks


def captured(update: Update, how: Compile, device: torch.device, ranks: Ranks) -> Captured | None:
    """The update as a CUDA graph; None where that is not asked for, or there is no GPU, or ranks share batches.

    Ranks wait for each other inside an update, and whoever waits in a graph for one that is gone waits for ever.
    """
    if how == "none" or device.type != "cuda" or ranks is not ALONE:
        return None
    return Captured(update, CudaGraphs(device))


def compile_networks(modules: nn.Module, how: Compile, device: torch.device) -> bool:
    """Has torch.compile make kernels for every perceptron, and on a GPU encoder and decoder, when each is first called.

    On a GPU only if `how` is `max`, on a CPU also for `default`. There encoder and decoder have ways back of their own,
    some images at a time, over which it would sit for many minutes. Where nothing can be compiled, one line says why.

    Returns:
        Whether they will be.
    """
    if how == "none" or (how == "default" and device.type == "cuda"):
        return False
    trouble = why_not(device)
    if trouble is not None:
        print(
            f"dreamfleet: networks are not compiled, as with --compile none (see dreamfleet doctor): {trouble}",
            file=sys.stderr,
        )
        return False
    kinds = Mlp if device.type == "cpu" else Encoder | Decoder | Mlp
    for module in modules.modules():
        if isinstance(module, kinds):
            module.compile(dynamic=False)
    return True


def why_not(device: torch.device) -> str | None:
    """Why torch.compile does not work here; found out by compiling something small."""
    try:
        torch.compile(lambda value: value.sin() + 1.0, dynamic=False)(torch.ones(2, device=device))
    except RuntimeError as error:
        return " ".join(str(error).strip().split("\n\n")[0].split())[
            :200
        ]  # after it come hints for PyTorch's own developers
    return None
