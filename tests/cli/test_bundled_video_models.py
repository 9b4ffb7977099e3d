"""The tiny video models that come with the install: the enhancer, and StreamingT2V around the same UNet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from longvid import LongVideoPipeline, StreamingT2VPipeline, VideoEnhancerPipeline, VideoWriter, read_video
from longvid.pipelines.fingerprint import fingerprint_of
from longvid.sprites import Scene, Sprite, caption_clip, draw

SCENE = Scene("teal", "checkered", (Sprite("star", "yellow", "large", "right", "slow", x=10, y=30),))


@pytest.fixture(scope="module")
def streaming():
    pipe = LongVideoPipeline.from_pretrained("longvid/streaming-t2v-tiny")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_enhancer_of_the_command_brings_a_spoilt_clip_nearer_to_what_was_drawn(run):
    drawn = draw(SCENE, 16)[0].transpose(0, 1)
    coarse = interpolate(avg_pool2d(drawn, 4), scale_factor=4, mode="bilinear")
    noise = torch.randn(coarse.shape, generator=torch.Generator().manual_seed(0))
    with VideoWriter("in.mkv", fps=8, codec="ffv1") as writer:
        writer.write((coarse + 0.1 * noise).clamp(0, 1))
    words = ["--prompt", caption_clip(SCENE), "--strength", 0.3, "--seed", 1, "--output", "out.mkv", "--codec", "ffv1"]
    result = run("enhance", "in.mkv", *words, "--quiet")
    assert result.code == 0, result.err
    assert json.loads(Path("out.json").read_text())["model"]["name"] == "longvid/enhancer-tiny"
    given, made = (read_video(name).read()[0].transpose(0, 1) for name in ("in.mkv", "out.mkv"))
    assert (made - drawn).abs().mean() < 0.5 * (given - drawn).abs().mean()


def test_both_models_have_one_unet(streaming):
    enhancer = VideoEnhancerPipeline.from_pretrained("longvid/enhancer-tiny")
    grown = StreamingT2VPipeline.from_base("longvid/enhancer-tiny", image_encoder=streaming.image_encoder)
    marks = {fingerprint_of(pipe.unet) for pipe in (streaming, enhancer, grown)}
    assert len(marks) == 1


def test_the_streaming_model_goes_on_from_a_given_clip_and_its_memory_acts(streaming):
    clip = draw(SCENE, 8)[0].transpose(0, 1)

    def continued(video):
        generator = torch.Generator().manual_seed(0)
        options = {"num_frames": 8, "num_inference_steps": 2, "generator": generator, "output_type": "pt"}
        return streaming(caption_clip(SCENE), video=video, **options).frames[0]

    first, other = continued(clip), continued(clip.roll(20, dims=-1))
    assert first.shape == (8, 3, 64, 64)
    assert not torch.allclose(first, other, atol=1e-3), "the frames that are given make no difference"
