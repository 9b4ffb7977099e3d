"""What a UNet computes on its way: queries and keys of the decoder's self-attention, and the bottleneck feature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class SelfAttention:
    """Queries and keys of a self-attention layer, from which its maps can be made again.

    Attributes:
        query: (B * F, N, heads * d), the frames of one video next to each other.
        key: (B * F, N, heads * d).
        num_heads: Heads.
        scale: What products of query and key are multiplied by.
    """

    query: Tensor
    key: Tensor
    num_heads: int
    scale: float


@dataclass
class Observed:
    """What `observed` has seen of the last call.

    Attributes:
        attentions: The decoder's self-attention layers, in the order of the forward pass.
        hidden: Output of the middle block, the h-space, (B * F, C, h, w).
    """

    attentions: list[SelfAttention] = field(default_factory=list)
    hidden: Tensor | None = None


def decoder_self_attentions(unet: nn.Module) -> list[Any]:
    """The spatial self-attention layers of a UNet's decoder, in the order of the forward pass.

    Raises:
        ValueError: if there is none.
    """
    layers = [
        layer
        for name, layer in unet.named_modules()
        if name.startswith("up_blocks.") and ".attentions." in name and name.endswith(".attn1")
    ]
    if not layers:
        raise ValueError(f"expected self-attention in the decoder of the UNet; {type(unet).__name__} has none there")
    return layers


@contextmanager
def observed(unet: Any, *, attention: bool = True, hidden: bool = True) -> Iterator[Observed]:
    """See inside the calls of a UNet in this block; nothing stays in it afterwards.

    Only queries and keys are kept, which are as large as the features: the UNet computes its attention as it always
    does, with any processor, and no map is made here. Gradients reach what is seen, under gradient checkpointing too.

    Args:
        unet: A UNet of diffusers, image or video.
        attention: Whether to see the self-attention.
        hidden: Whether to see the output of the middle block.

    Raises:
        ValueError: if the UNet has no self-attention in its decoder, or no middle block, and it is asked for.
    """
    seen, handles = Observed(), []
    for index, layer in enumerate(decoder_self_attentions(unet) if attention else ()):
        seen.attentions.append(SelfAttention(None, None, layer.heads, layer.scale))  # type: ignore[arg-type]
        for name, projection in (("query", layer.to_q), ("key", layer.to_k)):
            handles.append(projection.register_forward_hook(_keeper(seen.attentions[index], name)))
    if hidden:
        if unet.mid_block is None:
            raise ValueError(f"expected a UNet with a middle block; {type(unet).__name__} has none")
        handles.append(unet.mid_block.register_forward_hook(_keeper(seen, "hidden")))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keeper(place: Any, name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        setattr(place, name, output)

    return keep
