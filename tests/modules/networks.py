"""Tiny networks of the real classes: two levels, eight latent channels, eight by eight latents."""

import torch
from torch import Tensor, nn

from longvid.modules import AnchoredUNet

TWO_LEVELS = {
    "in_channels": 8,
    "out_channels": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 16,
    "use_linear_projection": True,
}
PLAIN_BOTTOM = TWO_LEVELS | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
ONE_LEVEL = TWO_LEVELS | {
    "block_out_channels": (32,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}
MASK = TWO_LEVELS | {"out_channels": 1, "block_out_channels": (16, 32)}


def build(seed: int = 0, **config) -> AnchoredUNet:
    torch.manual_seed(seed)
    return AnchoredUNet(**(TWO_LEVELS | config)).eval()


def shake(network: nn.Module, seed: int = 1) -> nn.Module:
    """Move every weight, as training would, so that nothing is zero any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def draw(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
