"""LeanAttention: diffusers' attention without the work that it repeats at every call."""

from __future__ import annotations

from typing import Any, Self

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


class LeanAttention(Attention):
    r"""diffusers' attention, which reads its processor's signature only if there are options to hand on.

    The stock layer inspects the signature at every call, to find the options that the processor takes. Without options
    nothing depends on it. Weights, keys, processors and output are those of the stock layer, bit for bit.

    Shapes:
        hidden_states (B, N, C), encoder_hidden_states (B, M, D) -> (B, N, C).
    """

    @classmethod
    def of(cls, attention: Attention) -> Self:
        """Shallow copy of a stock layer under this class: the same weights under the same names."""
        lean = cls.__new__(cls)
        lean.__dict__.update(attention.__dict__)
        return lean

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **cross_attention_kwargs: Any,
    ) -> Tensor:
        """Compute the attention; `cross_attention_kwargs` are options for the processor."""
        if cross_attention_kwargs:
            return super().forward(hidden_states, encoder_hidden_states, attention_mask, **cross_attention_kwargs)
        return self.processor(
            self, hidden_states, encoder_hidden_states=encoder_hidden_states, attention_mask=attention_mask
        )


def install_lean_attention(network: nn.Module) -> int:
    """Turn every stock attention layer inside a network into a lean one; returns how many there were.

    Layers of other classes stay, and so do layers that hooks were put on, as offloading does.
    """
    found = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is Attention and not hasattr(child, "_hf_hook")
    ]
    for parent, name, child in found:
        parent.add_module(name, LeanAttention.of(child))
    return len(found)
