"""How the features of a conditioning branch enter a skip connection: by attention over frames, or by addition."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ..video.layout import unfold_frames
from .attention import LeanAttention


class AttentionMerger(nn.Module):
    r"""Let every position of a UNet feature attend, over time, to the conditioning features at the same position.

    .. math:: x' = P_{in}(\mathrm{GN}(x)), \quad x'' = \mathrm{MHA}(Q = W_q x', K = W_k c, V = W_v c), \quad
        y = x + P_{out}(x'')

    The number of conditioning frames is free. Freshly built, P_out is zero and y equals x.

    Args:
        channels: Channels C of both features.
        head_dim: Channels of an attention head.
        num_groups: Groups of the normalisation, which runs over all frames together.

    Raises:
        ValueError: if `channels` is no multiple of `head_dim`.

    Source: StreamingT2V (arXiv:2403.14773), Eq. 4-5.
    """

    def __init__(self, channels: int, head_dim: int = 64, num_groups: int = 32):
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"channels must be a multiple of head_dim; got channels={channels}, head_dim={head_dim}")
        self.norm = nn.GroupNorm(num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.attention = LeanAttention(query_dim=channels, heads=channels // head_dim, dim_head=head_dim)
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, hidden: Tensor, features: Tensor, num_frames: int) -> Tensor:
        """Merge `features` into `hidden`.

        Shapes:
            hidden (B * F, C, H, W) with F = `num_frames`, features (B * F_cond, C, H, W) -> (B * F, C, H, W).
        """
        batch, size = hidden.shape[0] // num_frames, hidden.shape[-2:]
        video = unfold_frames(hidden, num_frames)
        queries = self.proj_in(rearrange(self.norm(video), "b c f h w -> (b h w) f c"))
        context = rearrange(features, "(b f) c h w -> (b h w) f c", b=batch)
        merged = self.proj_out(self.attention(queries, encoder_hidden_states=context))
        return hidden + rearrange(merged, "(b h w) f c -> (b f) c h w", h=size[0], w=size[1])


class AdditionMerger(nn.Module):
    r"""Add the conditioning features of the same frame through a 1 x 1 convolution that starts at zero.

    .. math:: y = x + \mathrm{ZeroConv}(c)

    Args:
        channels: Channels C of both features.

    Source: ControlNet (arXiv:2302.05543); Add-Cond in StreamingT2V (arXiv:2403.14773), Appendix D.1.1.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.zero_conv = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.zero_conv.weight)
        nn.init.zeros_(self.zero_conv.bias)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor, features: Tensor, num_frames: int) -> Tensor:
        """Merge `features` into `hidden`.

        Shapes:
            hidden (B * F, C, H, W) with F = `num_frames`, features the same -> (B * F, C, H, W).
        """
        return hidden + self.zero_conv(features)
