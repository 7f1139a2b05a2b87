"""Layers, one formula each. Weights come from the torch module under test and are read as float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values as float64."""
    return tensor.detach().cpu().double().numpy()


def elu(x: np.ndarray) -> np.ndarray:
    """x where positive, e^x − 1 elsewhere."""
    return np.where(x > 0, x, np.exp(np.minimum(x, 0.0)) - 1.0)


def softplus(x: np.ndarray) -> np.ndarray:
    """ln(1 + e^x)."""
    return np.logaddexp(0.0, x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−x)."""
    return 1.0 / (1.0 + np.exp(-x))


def dense(linear: nn.Linear, x: np.ndarray) -> np.ndarray:
    """x W^T + b."""
    return x @ array(linear.weight).T + array(linear.bias)


def elu_mlp(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """Every dense layer of `module` in order, ELU after each but the last."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    for layer in layers[:-1]:
        x = elu(dense(layer, x))
    return dense(layers[-1], x)


def gru(cell: nn.GRUCell, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The GRU whose reset gate multiplies after the recurrent product (Keras' reset_after, PyTorch's only form)."""
    from_input = x @ array(cell.weight_ih).T + array(cell.bias_ih)
    from_state = h @ array(cell.weight_hh).T + array(cell.bias_hh)
    reset_x, update_x, new_x = np.split(from_input, 3, axis=-1)
    reset_h, update_h, new_h = np.split(from_state, 3, axis=-1)
    reset = sigmoid(reset_x + reset_h)
    update = sigmoid(update_x + update_h)
    candidate = np.tanh(new_x + reset * new_h)
    return (1.0 - update) * candidate + update * h


def convolution(layer: nn.Conv2d, image: np.ndarray, stride: int) -> np.ndarray:
    """Convolution without padding: (N, C, H, W) → (N, C', H', W')."""
    kernel, bias = array(layer.weight), array(layer.bias)  # (C', C, k, k)
    size = kernel.shape[-1]
    rows = (image.shape[2] - size) // stride + 1
    columns = (image.shape[3] - size) // stride + 1
    out = np.empty((image.shape[0], kernel.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            patch = image[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, :, i, j] = np.einsum("ncxy,ocxy->no", patch, kernel) + bias
    return out


def transposed_convolution(layer: nn.ConvTranspose2d, image: np.ndarray, stride: int) -> np.ndarray:
    """Every input pixel stamps the kernel, scaled, into the output: (N, C, H, W) → (N, C', H', W')."""
    kernel, bias = array(layer.weight), array(layer.bias)  # (C, C', k, k)
    size = kernel.shape[-1]
    rows, columns = image.shape[2], image.shape[3]
    out = np.zeros((image.shape[0], kernel.shape[1], (rows - 1) * stride + size, (columns - 1) * stride + size))
    for i in range(rows):
        for j in range(columns):
            stamp = np.einsum("nc,coxy->noxy", image[:, :, i, j], kernel)
            out[:, :, i * stride : i * stride + size, j * stride : j * stride + size] += stamp
    return out + bias[None, :, None, None]
