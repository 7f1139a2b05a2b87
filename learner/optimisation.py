"""Adam with a clipped global gradient norm, for one loss and its parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Optimiser:
    """Adam (β 0.9/0.999) over one module; gradients are clipped by their global norm without a host sync."""

    def __init__(self, module: nn.Module, learning_rate: float, epsilon: float, clip: float) -> None:
        self.parameters = dict(module.named_parameters())
        self.clip = clip
        self.adam = torch.optim.Adam(self.parameters.values(), lr=learning_rate, eps=epsilon, fused=True)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradients of `loss` with respect to this optimiser's parameters, and no others."""
        return list(torch.autograd.grad(loss, list(self.parameters.values())))

    def step(self, gradients: list[Tensor]) -> Tensor:
        """Clips and applies gradients; returns their global norm before clipping, a scalar on the device."""
        gradients = [_laid_out_like(*pair) for pair in zip(self.parameters.values(), gradients, strict=True)]
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        # What the fused step divides gradients by while it reads them: as `clip_grad_norm_`, but without a pass for it.
        scale = ((norm + 1e-6) / self.clip).clamp(min=1.0).float()
        self.adam.grad_scale = scale  # type: ignore[attr-defined]  # where `GradScaler` puts its own; Adam does not declare it
        # The fused step is the same either way; without this it refuses to be captured, with it it warns outside.
        self.adam.param_groups[0]["capturable"] = norm.is_cuda and torch.cuda.is_current_stream_capturing()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by parameter name; empty before the first step."""
        return {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.adam.state[parameter].items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` returned."""
        for name, parameter in self.parameters.items():
            if f"{name}.step" in state:
                moments = {key: state[f"{name}.{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
                self.adam.state[parameter] = {
                    "step": state[f"{name}.step"].clone().to(parameter.device),
                    **{key: torch.empty_like(parameter).copy_(moment) for key, moment in moments.items()},
                }


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The fused step walks raw memory, so gradients and moments must lie in it as their parameter does."""
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)
