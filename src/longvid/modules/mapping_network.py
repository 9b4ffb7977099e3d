"""HARIVO's mapping network: what the frozen image model sees of a noisy video, adjusted along time."""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from ..video.layout import check_video
from .attention import LeanAttention

CONVOLUTIONS = ("temporal", "3d")


class MappingNetwork(ModelMixin, ConfigMixin):
    r"""Adjusts noisy video latents before they enter the UNet, at every step.

    One layer is, with a convolution :math:`r` and self-attention over the frames of every pixel,

    .. math:: y = r(x), \qquad M(x) = x + y + W\, \mathrm{MHA}(\mathrm{LN}(y)), \qquad r = 0,\ W = 0
        \text{ at initialisation,}

    so a fresh network is the identity, bit for bit. It belongs to the denoiser, not to the sampler: the UNet sees
    :math:`M(x_t)` and predicts the noise of :math:`x_t`. There are no frame positions in it, so any number of frames fits.

    Args:
        in_channels: Channels of the latents.
        num_heads: Heads of the attention.
        head_dim: Width of a head.
        num_layers: Layers, one after another.
        hidden_channels: Width of the layers, between two 1 x 1 convolutions, the last of which is zero at first; None
            works on the latents' own channels, as the paper's pseudo-code does.
        conv: "temporal" convolves over 3 frames (the pseudo-code), "3d" over 3 x 3 x 3 (the paper's text); two
            convolutions with a SiLU between them.

    Shapes:
        sample (B, C, F, H, W) -> (B, C, F, H, W).

    Raises:
        ValueError: for another `conv`, fewer than one layer, or, when called, a sample of another shape.

    Source: HARIVO (arXiv:2410.07763), Sec. 3.2 and the appendix's `MappingLayer`. `TemporalConv3d_Residual`, which it calls,
        is not printed; without a skip of its own the layer starts as the identity, with one as twice it.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        num_heads: int = 8,
        head_dim: int = 64,
        num_layers: int = 1,
        hidden_channels: int | None = None,
        conv: str = "temporal",
    ):
        super().__init__()
        if conv not in CONVOLUTIONS:
            raise ValueError(f"conv must be one of {', '.join(CONVOLUTIONS)}; got {conv!r}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; got {num_layers}")
        width = hidden_channels or in_channels
        convolutions = TemporalConvolutions if conv == "temporal" else SpacetimeConvolutions
        self.layers = nn.ModuleList(
            [MappingLayer(convolutions(width), width, num_heads, head_dim) for _ in range(num_layers)]
        )
        self.lift = self.lower = None
        if hidden_channels is not None:
            self.lift = nn.Conv3d(in_channels, width, 1)
            self.lower = zeroed(nn.Conv3d(width, in_channels, 1))

    def forward(self, sample: Tensor) -> Tensor:
        """Map a noisy video to what the UNet is to see."""
        hidden = check_video(sample, channels=self.config["in_channels"], name="sample")
        if self.lift is not None:
            hidden = self.lift(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden if self.lower is None else sample + self.lower(hidden)


class MappingLayer(nn.Module):
    """One layer of a mapping network: convolutions, attention over frames, both added to what came in.

    Args:
        convolutions: (B, C, F, H, W) -> the same shape, zero at first.
        channels: C.
        num_heads: Heads of the attention.
        head_dim: Width of a head.
    """

    def __init__(self, convolutions: nn.Module, channels: int, num_heads: int, head_dim: int):
        super().__init__()
        self.convolutions = convolutions
        self.norm = nn.LayerNorm(channels)
        self.attention = LeanAttention(channels, heads=num_heads, dim_head=head_dim)
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, sample: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, C, F, H, W)."""
        batch, _, _, height, width = sample.shape
        branch = rearrange(self.convolutions(sample), "b c f h w -> (b h w) f c")
        branch = branch + self.proj_out(self.attention(self.norm(branch)))
        return sample + rearrange(branch, "(b h w) f c -> b c f h w", b=batch, h=height, w=width)


class TemporalConvolutions(nn.Sequential):
    """Two convolutions over 3 frames each, at every pixel by itself; the last one is zero at first."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv1d(channels, channels, 3, padding=1)),
        )

    def forward(self, sample: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, C, F, H, W)."""
        batch, _, _, height, width = sample.shape
        rows = super().forward(rearrange(sample, "b c f h w -> (b h w) c f"))
        return rearrange(rows, "(b h w) c f -> b c f h w", b=batch, h=height, w=width)


class SpacetimeConvolutions(nn.Sequential):
    """Two convolutions over 3 frames x 3 x 3 pixels; the last one is zero at first."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv3d(channels, channels, 3, padding=1)),
        )


def zeroed(layer: nn.Module) -> nn.Module:
    """Set all weights of a layer to zero and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
