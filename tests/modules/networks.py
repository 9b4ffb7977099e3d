"""Tiny networks of the real classes: two levels, eight latent channels, eight by eight latents."""

import torch
from diffusers import UNet3DConditionModel
from torch import Tensor, nn

from longvid.modules import AnchoredUNet, VideoUNet

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


VIDEO = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}


def stock_video_unet(seed: int = 0, **config) -> UNet3DConditionModel:
    """A 3-D UNet of diffusers with no weight at zero: its temporal convolutions end in zeros when freshly built."""
    torch.manual_seed(seed)
    return shake(UNet3DConditionModel(**(VIDEO | config)).eval())


def video_unet(seed: int = 0, **config) -> VideoUNet:
    return VideoUNet.from_unet(stock_video_unet(seed, **config))


def video_batch(size: tuple[int, int] = (8, 8), num: int = 2, num_frames: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """(sample, timestep, text) of a batch of videos."""
    return draw(num, 4, num_frames, *size), torch.tensor(481), draw(num, 5, 16, seed=3)
