"""Count a network's parameters and multiply-adds, on the meta device too: nothing need be allocated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Number of weights, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_multiply_adds(module: nn.Module, *inputs: Any, **named_inputs: Any) -> int:
    """Multiply-adds of one forward pass by the rules of the `thop` package, the convention of ART-V's Table 3.

    Counted are convolutions and linear layers (biases free), 4 per element of a LayerNorm and 1 per output of an
    average pooling. Attention products, group norms and activations are not: true cost is higher, the more so the
    larger the frame.
    """
    total = 0

    def add(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += layer.in_features * output.numel()
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            total += layer.weight[0].numel() * output.numel()
        elif isinstance(layer, nn.LayerNorm):
            total += 4 * output.numel()
        elif isinstance(layer, nn.AvgPool2d):
            total += output.numel()

    counted = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.AvgPool2d)
    handles = [layer.register_forward_hook(add) for layer in module.modules() if isinstance(layer, counted)]
    try:
        module(*inputs, **named_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return total
