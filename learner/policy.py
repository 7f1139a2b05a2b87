"""The policy: an RSSM filter over images, the reward head, and how a behaviour acts.

All that an actor knows of the learner.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.checkpoint import Checkpoint
from common.config import Config
from common.errors import UserError
from common.run_folder import RunFolder
from common.seeding import derive_seed
from learner.behaviors import BEHAVIORS
from learner.behaviors.behavior import Foresight
from learner.filter import Filter
from learner.networks import Encoder, ScalarHead
from learner.world_model.rssm import RSSM
from learner.world_model.state import State

PARTS = {
    "encoder": "world_model.encoder.",
    "rssm": "world_model.rssm.",
    "reward": "world_model.reward.",
    "acting": "behavior.acting.",
}


class PolicyState(NamedTuple):
    """What the filter remembers: the latest posterior (E, …) and the action (E, A) that was returned last."""

    latent: State
    action: Tensor


def policy_weights(
    encoder: nn.Module, rssm: nn.Module, reward: nn.Module, acting: nn.Module
) -> dict[str, NDArray[np.float32]]:
    """The named weights that `Policy.load_weights` takes, copied to the host."""
    parts = {"encoder": encoder, "rssm": rssm, "reward": reward, "acting": acting}
    return {
        f"{part}.{name}": tensor.detach().cpu().numpy().copy()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


class Policy:
    """Acts from 64×64 images, for a batch of environments at once.

    >>> policy = Policy.load("runs/x")
    >>> action, state = policy.act(image)              # the first image of an episode
    >>> action, state = policy.act(image, state)       # and on
    """

    def __init__(self, config: Config, action_size: int, seed: int = 0) -> None:
        self.config = config
        self.action_size = action_size
        self.encoder = Encoder(config.world_model.depth)
        self.rssm = RSSM(config.world_model, action_size, self.encoder.size)
        self.acting = BEHAVIORS[config.algorithm].make_acting(config, self.rssm.feature_size, action_size)
        sizes = config.world_model
        self.reward = ScalarHead(self.rssm.feature_size, sizes.reward_layers, sizes.reward_units)
        self.parts = nn.ModuleDict(
            {"encoder": self.encoder, "rssm": self.rssm, "acting": self.acting, "reward": self.reward}
        )
        self.parts.requires_grad_(False)
        self.filter = Filter(self.encoder, self.rssm)
        self.foresight = Foresight(self.rssm, self.reward)
        self.tensors: dict[str, Tensor] = self.parts.state_dict()
        self.generator = torch.Generator()
        self.reseed(seed)

    @classmethod
    def load(cls, run_dir: str | Path, seed: int = 0) -> Policy:
        """The policy of a run's newest complete checkpoint.

        Raises:
            UserError: the folder holds no run or no complete checkpoint.
        """
        folder = RunFolder(Path(run_dir))
        config = folder.load_config()
        checkpoint = folder.newest_checkpoint()
        if checkpoint is None:
            raise UserError(f"{run_dir} has no complete checkpoint yet")
        return cls.from_checkpoint(config, checkpoint, seed)

    @classmethod
    def from_checkpoint(cls, config: Config, checkpoint: Checkpoint, seed: int = 0) -> Policy:
        """The policy of a checkpoint that was written by a run with this configuration."""
        parameters = safetensors.numpy.load(checkpoint.read("parameters.safetensors"))
        policy = cls(config, int(checkpoint.state["action_size"]), seed)
        policy.load_weights(
            {
                f"{part}.{name.removeprefix(prefix)}": value
                for part, prefix in PARTS.items()
                for name, value in parameters.items()
                if name.startswith(prefix)
            }
        )
        return policy

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Copies weights in place, each once; raises KeyError when one is missing."""
        for name, tensor in self.tensors.items():
            np.copyto(tensor.numpy(), weights[name])

    def reseed(self, seed: int) -> None:
        """Draws from a new random stream from now on."""
        self.generator.manual_seed(derive_seed(seed, "policy"))

    def initial(self, environments: int) -> PolicyState:
        """The state before an episode's first image, for `environments` environments."""
        return PolicyState(self.rssm.initial(environments), torch.zeros(environments, self.action_size))

    @torch.inference_mode()
    def act(
        self,
        image: NDArray[np.uint8],
        state: PolicyState | None = None,
        *,
        is_first: NDArray[np.bool_] | None = None,
        training: bool = False,
    ) -> tuple[NDArray[np.float32], PolicyState]:
        """One action for each image.

        Args:
            image: uint8 (64, 64, 3), or (E, 64, 64, 3) for E environments.
            state: what the previous call returned; None at the start.
            is_first: bool (E,), environments whose episode begins with this image; their state is reset.
            training: a sample with exploration noise, clipped to ±1, instead of the mode.

        Returns:
            Actions float32 (A,) or (E, A) in ±1, and the state for the next call; it remembers the returned action,
            which is what the filter sees next.
        """
        batch = torch.tensor(image if image.ndim == 4 else image[None])  # (E, 64, 64, 3)
        count = len(batch)
        latent, previous = state if state is not None else self.initial(count)
        if is_first is not None and is_first.any():
            keep = torch.tensor(~is_first, dtype=torch.float32).unsqueeze(-1)  # (E, 1)
            latent, previous = latent.map(lambda part: part * keep), previous * keep
        latent = self.filter.step(latent, previous, batch, self._noise(count, self.rssm.stoch_size))
        shapes = self.acting.noise_shapes(count, training)
        acting_noise = {name: self._noise(*shape) for name, shape in shapes.items()}
        action = self.acting.act(self.foresight, latent, acting_noise, training)
        if training:
            action = action + self.config.acting.noise * self._noise(count, self.action_size)
        action = action.clamp(-1.0, 1.0)
        result = action.numpy().copy()
        return (result if image.ndim == 4 else result[0]), PolicyState(latent, action)

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)
