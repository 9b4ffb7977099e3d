"""Two chunks of the official StreamingT2V pipeline (fixture vii), made by ours from the same weights and noise."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler

import tiny
from longvid import AppearancePreservationModule, ConditionalAttentionModule, StreamingT2VPipeline, VideoUNet
from streaming_t2v_numbers import assert_near, description, parts, tensors


class RecordedDDIM(DDIMScheduler):
    """DDIM whose noise was drawn before: (F, C, h, w) per step."""

    noise = iter(())

    def step(self, model_output, timestep, sample, eta=0.0, return_dict=True):
        noise = next(self.noise).transpose(0, 1)[None]
        return super().step(model_output, timestep, sample, eta=eta, variance_noise=noise, return_dict=return_dict)


@pytest.fixture(scope="module")
def numbers():
    return tensors("vii_chunk")


@pytest.fixture(scope="module")
def pipeline(numbers):
    config = description("iv_full_forward")["config"]
    weights, sizes = parts("iv_weights_base_model", "iv_weights_unet", "vii_chunk"), description("vii_chunk")["config"]
    unet = VideoUNet(**config["unet"]).eval()
    cam = ConditionalAttentionModule(
        **config["unet"],
        frame_encoder_widths=config["conditioning_embedding_out_channels"],
        merger_head_dim=config["merger_attention_head_dim"],
    ).eval()
    apm = AppearancePreservationModule.from_unet(unet, image_embed_dim=32, inner_dim=sizes["resampler_inner_dim"])
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(**sizes["vae"], **blocks).eval()
    unet.load_state_dict(weights["unet"])
    cam.load_state_dict(weights["cam"])
    apm.load_state_dict(weights["apm"])
    assert not vae.load_state_dict(weights["vae"], strict=False).unexpected_keys
    pipe = StreamingT2VPipeline(
        vae, tiny.text_encoder(), tiny.tokenizer(), RecordedDDIM(**sizes["scheduler"]), unet, cam, apm.eval(),
        tiny.image_encoder(),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    blank, anchor = numbers["input.image_embeds"].split(1)
    pipe.embed_anchor = lambda pixels: anchor if pixels.any() else blank
    chunks = [numbers["input.init_noise"], numbers["input.chunk2.init_noise"]]
    pipe.prepare_noise = lambda window, *_: chunks[window.index]
    return pipe


@pytest.mark.parametrize("batched", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_chunks(pipeline, numbers, batched):
    pipeline.scheduler.noise = iter(torch.cat([numbers["input.step_noise"], numbers["input.chunk2.step_noise"]]))
    null_text, text = numbers["input.text_embeds"].split(1)
    steps = []

    def keep(pipe, step, timestep, given):
        steps.append(given["latents"])

    first, second = pipeline.stream(
        prompt_embeds=text,
        negative_prompt_embeds=null_text,
        video=numbers["input.previous_chunk"],
        num_frames=16,
        num_inference_steps=4,
        guidance_scale=7.5,
        batched_guidance=batched,
        callback_on_step_end=keep,
    )
    for made, expected in zip(steps, numbers["expected.latents_per_step"], strict=False):
        assert_near(made, expected)
    assert_near(steps[-1], numbers["expected.chunk2.latents_final"], 1e-3)
    assert_near(first.frames[0].transpose(0, 1), numbers["expected.video"][8:])
    assert_near(second.frames[0].transpose(0, 1), numbers["expected.chunk2.video"][8:], 1e-3)
