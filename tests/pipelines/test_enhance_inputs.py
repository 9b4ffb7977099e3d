"""What the video enhancer refuses, and that it does so before any work."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import tiny

VIDEO = torch.zeros(3, 3, 8, 8)


@pytest.fixture(scope="module")
def pipe():
    made = tiny.enhancer()
    for part in (made.unet, made.vae.encoder, made.text_encoder):
        part.register_forward_pre_hook(lambda *_: pytest.fail("work began"))
    return made


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (None, "video must be .*; got NoneType"),
        (VIDEO[0], r"video must be .*; got Tensor of shape \(3, 8, 8\)"),
        (Image.new("RGB", (8, 8)), "video must be .*; got Image"),
        (3, "video must be .*; got int"),
        ({"video": VIDEO}, "video must be .*; got dict"),
        ([], "video has no frames"),
        (VIDEO[:0], "video has no frames"),
        (["frame.png"], "video must be a PIL image.*; got str"),
        (VIDEO[:, :1], r"video must be .*; got Tensor of shape \(1, 8, 8\)"),
        (VIDEO - 1, r"video must lie in \[0, 1\]; got values from -1 to -1"),
        (VIDEO.long(), "video must be uint8 or floating point; got torch.int64"),
        ("nowhere.mp4", "there is no video at nowhere.mp4"),
    ],
)
def test_what_is_no_video_is_refused(pipe, video, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream("a", video)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"chunk_size": 8, "overlap": 8},
            "overlap must be at least 0 and below chunk_size; got overlap=8, chunk_size=8",
        ),
        ({"overlap": -1}, "below chunk_size; got overlap=-1"),
        ({"chunk_size": 0}, "chunk_size must be a whole number of at least 1; got 0"),
        ({"chunk_size": 2.5}, "chunk_size must be a whole number of at least 1; got 2.5"),
        ({"strength": 0}, r"strength must lie in \(0, 1\]; got 0"),
        ({"strength": 1.5}, r"strength must lie in \(0, 1\]; got 1.5"),
        ({"strength": "0.5"}, r"strength must lie in \(0, 1\]; got '0.5'"),
        ({"strength": 0.5, "noise_timestep": 500}, "strength or noise_timestep; got both, 0.5 and 500"),
        ({"noise_timestep": 1200}, r"noise_timestep must lie in \(0, 1000\]; got 1200"),
        ({"noise_timestep": float("nan")}, "noise_timestep must lie in"),
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number of at least 1; got 0"),
        (
            {"num_inference_steps": 1001},
            "num_inference_steps must be at most 1000, the timesteps of training; got 1001",
        ),
        ({"num_inference_steps": 1, "noise_timestep": 0.0}, "noise_timestep must lie in"),
        ({"guidance_scale": -1}, "guidance_scale must be a number of at least 0; got -1"),
        ({"guidance_rescale": 1.1}, r"guidance_rescale must lie in \[0, 1\]; got 1.1"),
        ({"blending": "linear"}, "blending must be one of paper, released, or a function; got 'linear'"),
        ({"height": 0}, "height must be a whole number of at least 1; got 0"),
        ({"width": 8.0}, "width must be a whole number of at least 1; got 8.0"),
        ({"frames_per_batch": 0}, "frames_per_batch must be a whole number of at least 1; got 0"),
        ({"output_type": "mp4"}, "output_type must be one of np, pt, pil, latent; got 'mp4'"),
        ({"latents": torch.zeros(1, 4, 2, 4, 4)}, r"latents must have shape \(1, 4, 3, 4, 4\); got \(1, 4, 2, 4, 4\)"),
        ({"generator": [torch.Generator()] * 2}, "one per video, 1; got 2"),
        ({"generator": 3}, "generator must be a torch.Generator"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"among \['latents', 'prediction'\]; got \['noise'\]"),
        ({"negative_prompt": "a", "negative_prompt_embeds": torch.zeros(1, 1, 1)}, "negative_prompt_embeds; got both"),
    ],
)
def test_settings_that_cannot_be_are_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream("a", VIDEO, **options)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "expected either prompt or prompt_embeds; got neither"),
        (3, "prompt must be a string or a list of strings; got 3"),
        ([], r"prompt must be a string or a list of strings; got \[\]"),
        ([["a"]], "prompt must be a string or a list of strings"),
    ],
)
def test_what_is_no_prompt_is_refused(pipe, prompt, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream(prompt, VIDEO)


def test_videos_and_prompts_must_match_in_number(pipe):
    with pytest.raises(ValueError, match="as many of each; got 3 and 2"):
        pipe.stream(["a", "b"], torch.zeros(3, 3, 2, 8, 8))


def test_a_frame_of_another_size_or_range_is_named_when_it_is_read():
    pipe = tiny.enhancer()
    with pytest.raises(ValueError, match="one size; frame 2 is 8 x 6, the first 8 x 8"):
        pipe("a", iter([VIDEO[0], VIDEO[1], VIDEO[2, :, :, :6]]))
    with pytest.raises(ValueError, match=r"video must lie in \[0, 1\]"):
        pipe("a", iter([VIDEO[0], VIDEO[1] + 2]))
    with pytest.raises(ValueError, match=r"latents must have shape \(1, 4, 3, 4, 4\)"):  # counted while it is read
        pipe("a", iter(VIDEO), latents=torch.zeros(1, 4, 2, 4, 4))


def test_components_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a unet with 4 input channels, those of the VAE's latents; got 8"):
        tiny.enhancer(unet=tiny.stock_video_unet(in_channels=8)).stream("a", VIDEO)
    with pytest.raises(ValueError, match="call_defaults must name arguments of the call; got chunks"):
        tiny.enhancer(call_defaults={"chunks": 3})
