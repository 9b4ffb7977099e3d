"""A video UNet made of an image UNet."""

from __future__ import annotations

import pytest
import torch

import tiny
from longvid.modules import VideoUNet, inflated

IMAGE = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "attention_head_dim": (2, 4)}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_every_frame_of_an_inflated_unet_is_the_image_unets(rng):
    image = tiny.unet(**IMAGE)
    video = inflated(image)
    assert isinstance(video, VideoUNet)
    sample, text = torch.randn(2, 8, 3, 8, 8, generator=rng), torch.randn(2, 5, tiny.TEXT_WIDTH, generator=rng)
    timestep = torch.tensor([10, 900])
    with torch.no_grad():
        made = video(sample, timestep, text).sample
        frames = [image(sample[:, :, number], timestep, text).sample for number in range(3)]
    torch.testing.assert_close(made, torch.stack(frames, dim=2), atol=2e-5, rtol=1e-4)


def test_an_inflated_unet_keeps_the_image_weights_and_lets_the_temporal_ones_learn(rng):
    image = tiny.unet(**IMAGE)
    video = inflated(image.train())
    weights = video.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in image.state_dict().items())
    assert video.training
    sample, text = torch.randn(1, 8, 3, 8, 8, generator=rng), torch.randn(1, 5, tiny.TEXT_WIDTH, generator=rng)
    video(sample, 500, text).sample.square().mean().backward()
    projections = [
        parameter
        for name, parameter in video.named_parameters()
        if name.endswith(("proj_out.weight", "conv4.3.weight")) and ("temp_" in name or "transformer_in" in name)
    ]
    assert projections
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in projections)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_linear_projection": False}, "use_linear_projection=True; got False"),
        ({"attention_head_dim": 2}, "attention heads of one width; got 8, 16"),
        ({"class_embed_type": "timestep"}, "no place for 4 weights of this UNet, first class_embedding"),
    ],
)
def test_what_a_video_unet_lacks_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        inflated(tiny.unet(**{**IMAGE, **changes}))


def test_blocks_without_a_video_form_are_an_error():
    other = tiny.unet(**{**IMAGE, "down_block_types": ("AttnDownBlock2D", "DownBlock2D")})
    with pytest.raises(ValueError, match="expected blocks of CrossAttnDownBlock2D.*; got AttnDownBlock2D"):
        inflated(other)
