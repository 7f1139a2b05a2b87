"""Keras' default initialisation, which the published scores were trained with; PyTorch's own differs and matters."""

from __future__ import annotations

from torch import nn


def initialise_like_keras(module: nn.Module) -> None:
    """Glorot-uniform kernels, orthogonal recurrent kernels and zero biases, for every layer inside `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GRUCell):
            nn.init.xavier_uniform_(layer.weight_ih)
            nn.init.orthogonal_(layer.weight_hh)
            nn.init.zeros_(layer.bias_ih)
            nn.init.zeros_(layer.bias_hh)
