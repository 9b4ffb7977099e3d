"""Tiny networks of the real classes: two levels, eight latent channels, eight by eight latents."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from longvid.modules import AnchoredUNet, ReferenceConditions

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


@pytest.fixture
def batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """(sample, timestep, text) of a batch of two."""

    def make(size: tuple[int, int] = (8, 8), num: int = 2) -> tuple[Tensor, Tensor, Tensor]:
        return draw(num, 8, *size), torch.tensor(500), draw(num, 5, 16, seed=3)

    return make


@pytest.fixture
def conditions() -> Callable[..., ReferenceConditions]:
    def make(size: tuple[int, int] = (8, 8), num: int = 2) -> ReferenceConditions:
        references = draw(num, 16, *size, seed=4)
        return ReferenceConditions(
            references=references,
            static_reference=references[:, :8],
            anchor=draw(num, 8, *size, seed=5),
            noise_level=torch.tensor([200, 7] * num)[:num],
        )

    return make
