"""Whether a learner's device keeps the replay's rows, and the memory for them."""

from __future__ import annotations

import math
from typing import NamedTuple

import psutil
import torch

from cluster.runtimes.assembly import Assembly, DeviceAssembly, HostAssembly
from cluster.runtimes.roles import Setting
from common.config import Config
from common.errors import UserError
from learner.device_rows import DeviceRows, row_bytes
from learner.feed import host_memory

AUTO_SHARE = 0.5
ON_SHARE = 0.9


class Decision(NamedTuple):
    """Whether rows stay on the device.

    Attributes:
        per_shard: rows of each shard; 0: none stay.
        about: one line for the run's log; nothing where nothing was to be decided.
    """

    per_shard: int
    about: str = ""


def rows_per_shard(config: Config) -> int:
    """Rows that a full shard holds, where episodes have their full length, and those of one batch beside them.

    Shorter episodes have more reset rows, which are no environment steps; what does not fit then is brought again.
    """
    environment, replay = config.environment, config.replay
    stepped = math.ceil(replay.capacity / replay.shards / environment.action_repeat)
    resets = math.ceil(replay.capacity / replay.shards / environment.time_limit)
    return stepped + resets + config.sequences * config.training.batch_length


def decide(config: Config, action_size: int, device: str, free: int) -> Decision:
    """Whether rows stay on a device with so many free bytes.

    Raises:
        UserError: they must, and do not fit.
    """
    if config.replay_on_device == "off" or (config.replay_on_device == "auto" and not device.startswith("cuda")):
        return Decision(0)
    per_shard = rows_per_shard(config)
    rows = per_shard * config.replay.shards
    size = rows * row_bytes(action_size)
    takes = f"{rows:,} rows, {size / 1e9:,.1f} GB"
    if config.replay_on_device == "on" and size > ON_SHARE * free:
        raise UserError(
            f"--replay-on-device on: {takes}, are more than {ON_SHARE:.0%} of the {free / 1e9:,.1f} GB that are free "
            f"on {device}: lower --replay.capacity, or give auto or off"
        )
    if config.replay_on_device == "auto" and size > AUTO_SHARE * free:
        return Decision(
            0, f"replay on {device}: no, {takes}, are more than {AUTO_SHARE:.0%} of the {free / 1e9:,.1f} GB free there"
        )
    return Decision(per_shard, f"replay on {device}: yes, up to {takes}")


def make_assembly(setting: Setting) -> Assembly:
    """Where a learner's share of each batch is put together; takes the memory for it.

    Raises:
        UserError: rows must stay on the device, and do not fit.
    """
    config, action_size, device = setting.config, setting.action_size, setting.device
    leading = (config.sequences // config.learners, config.training.batch_length)
    per_shard, about = decide(config, action_size, device, _free_bytes(device, config.learners))
    if not per_shard:
        return HostAssembly(lambda: host_memory(leading, action_size, device), about)
    rows = DeviceRows(per_shard * config.replay.shards, action_size, torch.device(device))
    return DeviceAssembly(rows, per_shard, config.replay.shards, leading, action_size, about)


def _free_bytes(device: str, learners: int) -> int:
    """Memory that a learner can have on its device now: a GPU's is its own, the host's is shared by all."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) // learners
