"""A StreamingT2V model grown from a text-to-video model."""

from __future__ import annotations

import pytest
import torch
from diffusers import TextToVideoSDPipeline

import tiny
from longvid import StreamingT2VPipeline
from longvid.modules import AddedConditioning


def text_to_video(**changes):
    return TextToVideoSDPipeline(**tiny.text_to_video_parts(**changes))


def test_a_grown_model_continues_frames_as_the_base_makes_them(tmp_path):
    text_to_video().save_pretrained(tmp_path)
    options = {"frame_encoder_widths": (4, 4)}  # for a VAE of 2 x 2 pixels
    pipe = StreamingT2VPipeline.from_base(
        tmp_path, image_encoder=tiny.image_encoder(), cam_options=options, chunk_size=4, overlap=2
    )
    unet, sample = pipe.unet, torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 12, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))
    frames = pipe.cam.encode_frames(torch.zeros(1, 3, 2, 16, 16), num_frames=4)
    features = pipe.cam(sample, 500, text, encoded_frames=frames)
    contexts = pipe.apm(text, torch.ones(1, pipe.apm.config.image_embed_dim))
    alone = unet(sample, 500, text).sample
    assert torch.equal(unet(sample, 500, contexts, **pipe.cam.unet_options(features)).sample, alone)


def test_without_an_image_encoder_there_is_no_long_term_memory():
    pipe = StreamingT2VPipeline.from_base(text_to_video())
    assert pipe.apm is None
    with pytest.raises(ValueError, match="apm_options are for APM, which needs an image_encoder"):
        StreamingT2VPipeline.from_base(text_to_video(), apm_options={"num_image_tokens": 2})


def test_a_module_of_ones_own_takes_the_place_of_cam():
    base = text_to_video()
    own = AddedConditioning.from_unet(base.unet)
    assert StreamingT2VPipeline.from_base(base, cam=own).cam is own
    with pytest.raises(ValueError, match="cam_options are for a new CAM; got a cam too"):
        StreamingT2VPipeline.from_base(base, cam=own, cam_options={"merger_head_dim": 8})


def test_a_base_of_another_layout_is_an_error():
    with pytest.raises(ValueError, match="expected a base with a UNet3DConditionModel.*; got UNet2DConditionModel"):
        StreamingT2VPipeline.from_base(tiny.stable_diffusion())
