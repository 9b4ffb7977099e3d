"""Anchored conditioning: the anchor frame as tokens, and the blocks that read them beside the text."""

from __future__ import annotations

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from einops import rearrange
from torch import Tensor, nn

from .attention import LeanAttention


def patch_tokens(anchor: Tensor, patch: int) -> Tensor:
    """Cut latents into `patch` x `patch` tokens, row by row, without learned weights (a pixel unshuffle).

    Sides that are no multiple of `patch` are first extended by repeating their last row or column.

    Shapes:
        (B, C, H, W) -> (B, ceil(H / patch) * ceil(W / patch), C * patch**2).
    """
    height, width = anchor.shape[-2:]
    if height % patch or width % patch:
        anchor = nn.functional.pad(anchor, (0, -width % patch, 0, -height % patch), mode="replicate")
    return rearrange(anchor, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def sincos_positions(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """Fixed two-dimensional sine-cosine code of a `height` x `width` grid of tokens; `dim` is a multiple of 4.

    Shapes:
        -> (height * width, dim): sine and cosine of the row, then of the column, at `dim / 4` frequencies each.
    """
    frequencies = 10_000.0 ** -(torch.arange(dim // 4, device=like.device, dtype=torch.float32) / (dim // 4))
    rows = torch.arange(height, device=like.device, dtype=torch.float32)[:, None] * frequencies
    columns = torch.arange(width, device=like.device, dtype=torch.float32)[:, None] * frequencies
    rows = torch.cat([rows.sin(), rows.cos()], dim=-1)[:, None].expand(-1, width, -1)
    columns = torch.cat([columns.sin(), columns.cos()], dim=-1)[None].expand(height, -1, -1)
    return rearrange([rows, columns], "side h w d -> (h w) (side d)").to(like.dtype)


class TextBlock(BasicTransformerBlock):
    """A stock transformer block that reads the first entry, the text, of the contexts `(text, anchor tokens)`.

    It keeps the positional signature of its parent, which gradient checkpointing relies on.
    """

    @classmethod
    def of(cls, block: BasicTransformerBlock) -> TextBlock:
        """Shallow copy of a stock block under this class: the same weights under the same names."""
        text_block = cls.__new__(cls)
        text_block.__dict__.update(block.__dict__)
        return text_block

    def forward(
        self, hidden_states, attention_mask=None, encoder_hidden_states=(None, None), *rest, **options
    ) -> Tensor:
        """Compute the block on `(B, N, D)` tokens; `encoder_hidden_states` is the pair `(text, anchor tokens)`."""
        text, _ = encoder_hidden_states
        return super().forward(hidden_states, attention_mask, text, *rest, **options)


class AnchorBlock(BasicTransformerBlock):
    r"""One more transformer block at a position of the UNet; its cross-attention reads the anchor tokens.

    Self-attention, cross-attention and feed-forward, each a residual: with 18 C^2 weights beside the narrow keys and
    values it is the block that the parameter counts of ART-V's Table 2 ask for. Without anchor tokens the block is
    skipped. After `zero_init` it computes the identity.

    Shapes:
        hidden_states (B, N, D), contexts (text, anchor tokens (B, M, C * patch**2) or None) -> (B, N, D).

    Source: ART-V (arXiv:2311.18834), Sec. 3.4; the block itself is a reconstruction.
    """

    def zero_init(self) -> None:
        """Zero the last layer of each of the three residual branches."""
        for name in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
            _zero(self.get_submodule(name))

    def forward(self, hidden_states, attention_mask=None, encoder_hidden_states=(None, None), *_, **__) -> Tensor:
        """Compute the block; masks and attention options of the text do not concern it."""
        _, tokens = encoder_hidden_states
        if tokens is None:
            return hidden_states
        return super().forward(hidden_states, attention_mask, tokens)


class AnchorCrossAttention(nn.Module):
    """The lighter injection: a single residual cross-attention to the anchor tokens, without the rest of a block.

    Shapes:
        as `AnchorBlock`.
    """

    def __init__(
        self, dim: int, heads: int, head_dim: int, *, cross_attention_dim: int, upcast_attention: bool = False
    ):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn2 = LeanAttention(
            query_dim=dim,
            cross_attention_dim=cross_attention_dim,
            heads=heads,
            dim_head=head_dim,
            upcast_attention=upcast_attention,
        )

    def zero_init(self) -> None:
        """Zero the output projection."""
        _zero(self.get_submodule("attn2.to_out.0"))

    def forward(self, hidden_states, attention_mask=None, encoder_hidden_states=(None, None), *_, **__) -> Tensor:
        """Add what the anchor has to say; without anchor tokens, return the input."""
        _, tokens = encoder_hidden_states
        if tokens is None:
            return hidden_states
        return hidden_states + self.attn2(self.norm(hidden_states), encoder_hidden_states=tokens)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


ANCHOR_INJECTIONS: dict[str, type[AnchorBlock] | type[AnchorCrossAttention] | None] = {
    "block": AnchorBlock,
    "cross_attn": AnchorCrossAttention,
    "none": None,
}


def install_anchor(transformer: Transformer2DModel, injection: str, token_dim: int, *, zero_init: bool) -> None:
    """Make a stock transformer read `(text, anchor tokens)`: same keys for the old blocks, one new block behind them.

    Args:
        injection: A key of `ANCHOR_INJECTIONS`; "none" adds no block.
        token_dim: Width of an anchor token.
        zero_init: Whether the new block starts as the identity.
    """
    blocks = [TextBlock.of(block) for block in transformer.transformer_blocks]  # type: ignore[arg-type]
    anchor_class = ANCHOR_INJECTIONS[injection]
    if anchor_class is not None:
        anchor_block = anchor_class(
            transformer.inner_dim,
            transformer.num_attention_heads,
            transformer.attention_head_dim,
            cross_attention_dim=token_dim,
            upcast_attention=transformer.config["upcast_attention"],
        )
        if zero_init:
            anchor_block.zero_init()
        blocks.append(anchor_block)  # type: ignore[arg-type]
    transformer.transformer_blocks = nn.ModuleList(blocks)
