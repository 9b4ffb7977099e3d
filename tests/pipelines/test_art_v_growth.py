"""Growing an ART-V model from a Stable Diffusion folder."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import tiny
from longvid import ARTVPipeline, DPMPP2SAncestralScheduler
from longvid.modules import PAPER_MASK_NETWORK, PAPER_UNET, AnchoredUNet
from longvid.pipelines.art_v_growth import mask_config

ALONE = {"guidance_scale": 1.0, "reference_guidance_scale": 0, "anchor_guidance_scale": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sd")
    tiny.stable_diffusion().save_pretrained(path)
    return path


def test_without_masks_and_references_the_grown_model_is_the_image_model_bit_for_bit(folder):
    base = StableDiffusionPipeline.from_pretrained(folder)
    pipe = ARTVPipeline.from_base(folder, mask_network=None)
    sample = torch.randn(2, tiny.LATENT_CHANNELS, 1, 8, 8)
    text, _ = pipe.encode_prompt(["a red circle", "a blue square"], "cpu")
    seen = {}

    def compare(pipe, step, timestep, tensors):
        return {"latents": sample} if step == 0 else seen.update(prediction=tensors["prediction"], timestep=timestep)

    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False)
    names = ["latents", "prediction"]
    options = {"num_frames": 1, "num_inference_steps": 2, "output_type": "latent", **ALONE}
    pipe(prompt_embeds=text, callback_on_step_end=compare, callback_on_step_end_tensor_inputs=names, **options)
    with torch.no_grad():
        expected = base.unet(sample[:, :, 0], seen["timestep"], text).sample
    assert torch.equal(seen["prediction"][:, :, 0], expected)


def test_the_first_frame_of_the_grown_model_is_the_image_of_the_base(folder):
    base = StableDiffusionPipeline.from_pretrained(folder)
    base.scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False, steps_offset=1)
    base.set_progress_bar_config(disable=True)
    pipe = ARTVPipeline.from_base(base, mask_network=None, scheduler=base.scheduler)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(1, tiny.LATENT_CHANNELS, 8, 8)
    options = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 7.5}
    image = base("a red circle", latents=latents.clone(), **options).images
    frame = pipe("a red circle", latents=latents[:, :, None], num_frames=1, **options).frames[:, :, 0]
    torch.testing.assert_close(frame, image * pipe.vae.config.scaling_factor / base.vae.config.scaling_factor)


def test_the_first_frame_of_a_model_grown_from_a_base_of_velocity_is_the_image_of_the_base(folder):
    base = StableDiffusionPipeline.from_pretrained(folder)
    base.scheduler = DDIMScheduler(**tiny.BETAS, prediction_type="v_prediction", clip_sample=False, steps_offset=1)
    base.set_progress_bar_config(disable=True)
    pipe = ARTVPipeline.from_base(base, mask_network=None)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(1, tiny.LATENT_CHANNELS, 8, 8)
    options = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 7.5}
    image = base("a red circle", latents=latents.clone(), **options).images
    for prediction_type in ("v_prediction", "epsilon"):
        pipe.scheduler = DDIMScheduler.from_config(base.scheduler.config, prediction_type=prediction_type)
        frame = pipe("a red circle", latents=latents[:, :, None], num_frames=1, **options).frames[:, :, 0]
        expected = image * pipe.vae.config.scaling_factor / base.vae.config.scaling_factor
        torch.testing.assert_close(frame, expected, rtol=1e-4, atol=1e-4)


def test_a_model_of_any_size_is_grown_with_its_mask_network_and_makes_a_video(folder, seeded):
    options = {"mask_options": {"mask_bias_init": -3.0}, "static_noise": "scaled", "call_defaults": {"num_frames": 2}}
    pipe = ARTVPipeline.from_base(str(folder), **options)
    assert isinstance(pipe.scheduler, DPMPP2SAncestralScheduler)
    assert pipe.scheduler.config.beta_end == 0.012 and pipe.config.static_noise == "scaled"
    assert pipe.mask_network.config.out_channels == 1 and pipe.mask_network.config.block_out_channels == (32, 32)
    pipe.set_progress_bar_config(disable=True)
    output = pipe("a red circle", num_inference_steps=2, generator=seeded(), output_masks=True)
    assert output.frames.shape == (1, 2, 64, 64, 3) and 0 < output.masks.mean() < 0.2


def test_a_base_stored_in_half_precision_is_grown_in_float32_unless_told(folder, tmp_path):
    StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16).save_pretrained(tmp_path)
    for options, dtype in (({}, torch.float32), ({"load_options": {"dtype": torch.float16}}, torch.float16)):
        pipe = ARTVPipeline.from_base(tmp_path, **options)
        assert {part.dtype for part in (pipe.unet, pipe.mask_network, pipe.vae, pipe.text_encoder)} == {dtype}


def test_the_base_is_copied_not_changed():
    base = tiny.stable_diffusion()
    pipe = ARTVPipeline.from_base(base, mask_network=None)
    with torch.no_grad():
        pipe.unet.conv_in.weight.zero_()
    assert base.unet.conv_in.weight.any() and pipe.vae is base.vae


def test_the_papers_mask_network_follows_from_the_papers_unet():
    with torch.device("meta"):
        paper = AnchoredUNet(**PAPER_UNET)
        mask = AnchoredUNet(**mask_config(paper.config))
    assert all(mask.config[name] == value for name, value in PAPER_MASK_NETWORK.items())
    count = sum(parameter.numel() for parameter in mask.parameters())
    assert count == 51_178_113 and sum(parameter.numel() for parameter in paper.parameters()) == 1_167_668_804


def test_a_base_that_predicts_something_else_or_is_no_image_model_is_refused(art_v):
    base = tiny.stable_diffusion(scheduler=DDIMScheduler(**tiny.BETAS, prediction_type="sample"))
    with pytest.raises(
        ValueError, match="expected a base that predicts epsilon or v_pred.*; got one that predicts sample"
    ):
        ARTVPipeline.from_base(base)
    from diffusers import DDPMPipeline

    with pytest.raises(ValueError, match="DDPMPipeline has no vae, text_encoder, tokenizer"):
        ARTVPipeline.from_base(DDPMPipeline(unet=None, scheduler=DDIMScheduler()))


def test_saving_and_loading_gives_the_same_video_bit_for_bit(tmp_path, seeded):
    from longvid import LongVideoPipeline

    pipe = tiny.art_v(static_noise="scaled", blank="encoded_gray")
    pipe.save_pretrained(tmp_path)
    loaded = LongVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is ARTVPipeline and loaded.config.call_defaults == pipe.config.call_defaults
    videos = [each("a red circle", generator=seeded(), output_type="pt").frames for each in (pipe, loaded)]
    assert torch.equal(*videos)
    plain = tiny.art_v(mask_network=None)
    plain.save_pretrained(tmp_path / "plain")
    assert LongVideoPipeline.from_pretrained(tmp_path / "plain").mask_network is None


def test_half_precision_stays_close_and_its_frames_are_float(seeded):
    options = {"num_frames": 2, "output_type": "pt", "num_inference_steps": 2, "guidance_scale": 2.0}
    exact = tiny.art_v()("a red circle", generator=seeded(), **options).frames
    half = tiny.art_v().to(torch.bfloat16)("a red circle", generator=seeded(), **options).frames
    assert half.dtype == torch.float32 and (half - exact).abs().mean() < 0.05
