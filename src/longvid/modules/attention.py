"""diffusers' attention without the work that it repeats at every call, and with a choice of who computes it."""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
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


class BackendAttnProcessor:
    r"""Attention by one of the backends that diffusers knows, where its own processor for UNets leaves the choice to torch.

    .. math:: \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}} + M\right) V

    "native" gives the bits of the stock processor, others differ by rounding. `set_attention_backend` of a network of
    diffusers reaches these processors, too.

    Args:
        backend: A name of `diffusers.models.attention_dispatch.AttentionBackendName`.

    Shapes:
        hidden_states (B, N, C), encoder_hidden_states (B, M, D) -> (B, N, C).
    """

    _parallel_config = None

    def __init__(self, backend: str = "native") -> None:
        self._attention_backend = AttentionBackendName(backend)

    def __call__(
        self,
        attn: Any,  # an Attention, whose parts are optional to a type checker
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Compute the attention of a layer that `is_plain`."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attention_mask is not None:
            per_head: Tensor = attn.prepare_attention_mask(attention_mask, text.shape[1], len(text))
            attention_mask = per_head.unflatten(0, (len(text), attn.heads))
        parts = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)) for part in parts)
        found = dispatch_attention_fn(query, key, value, attn_mask=attention_mask, backend=self._attention_backend)
        return attn.to_out[1](attn.to_out[0](found.flatten(2).to(query.dtype)))


def is_plain(attn: Attention) -> bool:
    """Whether a layer has nothing but projections, so that `BackendAttnProcessor` computes all of it."""
    norms = (attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
    return not any(norms) and not attn.residual_connection and attn.rescale_output_factor == 1


def choosable_layers(network: nn.Module) -> list[Any]:
    """The attention layers of a network whose backend can be chosen.

    Layers with another processor than diffusers' stock one, such as an IP-Adapter's, are not among them, nor are those of
    a VAE, which norm their input themselves.
    """
    processors = (AttnProcessor2_0, BackendAttnProcessor)
    layers = [module for module in network.modules() if isinstance(module, Attention) and is_plain(module)]
    return [layer for layer in layers if type(layer.processor) in processors]


def try_attention_backend(layer: Attention, backend: str) -> None:
    """Compute the attention of a few zeros, of the width, dtype and device of a layer, by a backend.

    Raises:
        RuntimeError, ValueError and others of the backend's own: if it cannot compute them.
    """
    weight = layer.to_q.weight
    zeros = torch.zeros(1, 16, layer.heads, weight.shape[0] // layer.heads, dtype=weight.dtype, device=weight.device)
    dispatch_attention_fn(zeros, zeros, zeros, backend=AttentionBackendName(backend))
