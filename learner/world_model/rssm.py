"""The recurrent state-space model (PlaNet): prior and posterior steps, and their unrolls in time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.config import WorldModelConfig
from learner.initialisation import initialise_like_keras
from learner.world_model.filtering import Filtering
from learner.world_model.state import State

__all__ = ["RSSM", "State"]


class RSSM(nn.Module):
    """h_t = GRU(h_{t−1}, s_{t−1}, a_{t−1}); prior p(s_t | h_t); posterior q(s_t | h_t, embed_t).

    `prior_step` and `posterior_step` define the model. `observe` computes the same for a whole batch, with all
    that does not depend on the recurrence taken out of the loop: the products of actions and embeddings before it, the
    prior's output after it.
    """

    def __init__(self, config: WorldModelConfig, action_size: int, embed_size: int) -> None:
        super().__init__()
        self.stoch_size, self.deter_size, self.min_std = config.stoch, config.deter, config.min_std
        self.feature_size = config.stoch + config.deter
        self.prior_input = nn.Linear(config.stoch + action_size, config.hidden)  # [stoch, action]
        self.cell = nn.GRUCell(config.hidden, config.deter)
        self.prior_hidden = nn.Linear(config.deter, config.hidden)
        self.prior_output = nn.Linear(config.hidden, 2 * config.stoch)
        self.posterior_hidden = nn.Linear(config.deter + embed_size, config.hidden)  # [deter, embed]
        self.posterior_output = nn.Linear(config.hidden, 2 * config.stoch)
        initialise_like_keras(self)

    def initial(self, batch: int) -> State:
        """The zero state for `batch` sequences, (batch, …)."""
        weight = self.cell.weight_hh
        stoch = weight.new_zeros(batch, self.stoch_size)
        return State(weight.new_zeros(batch, self.deter_size), stoch, stoch, stoch)

    def prior_step(self, previous: State, action: Tensor, noise: Tensor) -> State:
        """One step without an image: previous state (N, …), action (N, A), noise (N, S) → prior state (N, …)."""
        deter = self.recur(previous, action)
        mean, std = self._gaussian(self.prior_output(functional.elu(self.prior_hidden(deter))))
        return State(deter, mean, std, mean + std * noise)

    def posterior_step(self, prior: State, embed: Tensor, noise: Tensor) -> State:
        """The prior state (N, …) corrected by the image's embedding (N, E), with noise (N, S); shares its deter."""
        return self.look(prior.deter, embed, noise)

    def recur(self, previous: State, action: Tensor) -> Tensor:
        """The deterministic part (N, D) that previous states (N, …) and actions (N, A) lead to."""
        x = functional.elu(self.prior_input(torch.cat([previous.stoch, action], -1)))
        return self.cell(x, previous.deter)

    def look(self, deter: Tensor, embed: Tensor, noise: Tensor) -> State:
        """The posterior state (N, …) at deterministic parts (N, D), given embeddings (N, E), with noise (N, S)."""
        x = functional.elu(self.posterior_hidden(torch.cat([deter, embed], -1)))
        mean, std = self._gaussian(self.posterior_output(x))
        return State(deter, mean, std, mean + std * noise)

    def observe(self, embed: Tensor, action: Tensor, is_first: Tensor, noise: Tensor) -> tuple[State, State]:
        """Filters sequences from the zero state.

        Args:
            embed: (L, B, E).
            action: (L, B, A), the action that led to each row.
            is_first: bool (L, B); such rows start from the zero state and the zero action.
            noise: standard normal (L, B, S), of the posterior samples.

        Returns:
            Posterior and prior states, (L, B, …) each. The prior's sample uses the same noise.
        """
        keep = (~is_first).to(noise.dtype).unsqueeze(-1)  # (L, B, 1)
        weight_stoch, weight_action = self.prior_input.weight.split([self.stoch_size, action.shape[-1]], 1)
        weight_deter, weight_embed = self.posterior_hidden.weight.split([self.deter_size, embed.shape[-1]], 1)
        from_action = functional.linear(action * keep, weight_action, self.prior_input.bias)  # (L, B, hidden)
        from_embed = functional.linear(embed, weight_embed, self.posterior_hidden.bias)  # (L, B, hidden)
        posterior = State(
            *Filtering.apply(
                self.min_std,
                from_action.to(noise.dtype),
                from_embed.to(noise.dtype),
                keep,
                noise,
                weight_stoch,
                weight_deter,
                self.posterior_output.weight,
                self.posterior_output.bias,
                *(self.cell.weight_ih, self.cell.weight_hh, self.cell.bias_ih, self.cell.bias_hh),
            )
        )  # (L, B, …)
        hidden = functional.elu(self.prior_hidden(posterior.deter))
        mean, std = self._gaussian(self.prior_output(hidden))
        return posterior, State(posterior.deter, mean, std, mean + std * noise)

    def imagine(
        self, policy: Callable[[Tensor, Tensor], Tensor], start: State, noise: Tensor, action_noise: Tensor
    ) -> tuple[State, Tensor]:
        """Dreams ahead from `start`, which is no part of the result (Dreamer section 3).

        Args:
            policy: (feature (N, F), noise (N, A)) → action (N, A); it sees detached features, so that gradients reach
                an action through the states it leads to and not through the state it was chosen in.
            start: (N, …).
            noise: standard normal (H, N, S), of the prior samples.
            action_noise: standard normal (H, N, A), of the policy's samples.

        Returns:
            States (H, N, …), and the actions (H, N, A) that led to each.
        """
        state, states, actions = start, [], []
        for noise_t, action_noise_t in zip(noise.unbind(), action_noise.unbind(), strict=True):
            action = policy(state.feature.detach(), action_noise_t)
            state = self.prior_step(state, action, noise_t)
            states.append(state)
            actions.append(action)
        return _stack(states), torch.stack(actions)

    def follow(self, start: State, action: Tensor, noise: Tensor) -> State:
        """Predicts under given actions, without images (overshooting, open loop).

        Args:
            start: (N, …), no part of the result.
            action: (T, N, A), what leads to each state.
            noise: standard normal (T, N, S).

        Returns:
            Prior states (T, N, …).
        """
        state, states = start, []
        for action_t, noise_t in zip(action.unbind(), noise.unbind(), strict=True):
            state = self.prior_step(state, action_t, noise_t)
            states.append(state)
        return _stack(states)

    def _gaussian(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = output.to(self.cell.weight_hh.dtype).chunk(2, -1)
        return mean, functional.softplus(raw) + self.min_std


def _stack(states: list[State]) -> State:
    """States of single steps (N, …) to one with time first (T, N, …)."""
    return State(*(torch.stack(parts) for parts in zip(*states, strict=True)))
