"""What the video enhancer promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    TextToVideoSDPipeline,
    VideoToVideoSDPipeline,
)
from PIL import Image

import tiny
from longvid import LongVideoPipeline, VideoEnhancerPipeline, VideoWriter, read_video
from longvid.pipelines.frame_sizes import padded, scaled, wanted_size

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, inside diffusers

PROMPT = "a red circle moving right"


@pytest.fixture(scope="module")
def pipe():
    return tiny.enhancer()


def clip(num_frames=9, height=8, width=8, seed=0):
    """8-bit frames (F, 3, H, W) in [0, 1], so that every kind of input can hold them exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, height, width), generator=generator) / 255


def enhanced(pipe, video, seeded, prompt=PROMPT, **options):
    return pipe(prompt, video, generator=seeded(), output_type="pt", **options).frames


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 7, 9, 10, 11])
def test_as_many_frames_come_out_as_went_in(pipe, seeded, num_frames):
    frames = enhanced(pipe, clip(num_frames), seeded, num_inference_steps=1)
    assert frames.shape == (1, num_frames, 3, 8, 8)
    assert frames.isfinite().all() and frames.min() >= 0 and frames.max() <= 1


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (1, 7), (13, 5)])
def test_any_size_is_kept_exactly(pipe, seeded, size):
    assert enhanced(pipe, clip(3, *size), seeded).shape == (1, 3, 3, *size)


def test_a_call_collects_the_stream_bit_for_bit(pipe, seeded):
    whole = enhanced(pipe, clip(11), seeded)
    chunks = list(pipe.stream(PROMPT, clip(11), generator=seeded()))
    assert [chunk.start for chunk in chunks] == [0, 6, 10] and [chunk.num_frames for chunk in chunks] == [6, 4, 1]
    assert torch.equal(torch.cat([chunk.frames for chunk in chunks], dim=2), whole.transpose(1, 2))


def test_the_same_video_in_any_form_gives_the_same_result(pipe, seeded, tmp_path):
    video = clip(7)
    with VideoWriter(f"{tmp_path / 'frames'}/") as writer:
        writer.write(video)
    array = (video.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    forms = [
        video.transpose(0, 1)[None], (video * 255).round().to(torch.uint8), array, array[None],
        array.astype(np.float32) / 255, [Image.fromarray(frame) for frame in array], iter(video),
        (frame for frame in array), read_video(tmp_path / "frames"), tmp_path / "frames", str(tmp_path / "frames"),
    ]  # fmt: skip
    expected = enhanced(pipe, video, seeded, num_inference_steps=1)
    for form in forms:
        assert torch.equal(enhanced(pipe, form, seeded, num_inference_steps=1), expected)


def test_a_seed_is_a_video(pipe, seeded):
    first, again = (enhanced(pipe, clip(), seeded) for _ in range(2))
    other = pipe(PROMPT, clip(), generator=seeded(1), output_type="pt").frames
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_with_one_chunk_it_is_the_video_to_video_pipeline_of_diffusers(seeded):
    parts = tiny.text_to_video_parts()
    with torch.no_grad():  # no variance: diffusers draws from the posterior, longvid takes its mean
        parts["vae"].quant_conv.weight[4:] = 0
        parts["vae"].quant_conv.bias[4:] = -60
    ours, theirs = tiny.enhancer(**parts), VideoToVideoSDPipeline(**parts)
    theirs.set_progress_bar_config(disable=True)
    video = clip(5)
    options = {"num_inference_steps": 5, "strength": 0.6, "guidance_scale": 4.0, "output_type": "latent"}
    frames = [(frame.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for frame in video]
    expected = theirs(PROMPT, video=[Image.fromarray(frame) for frame in frames], generator=seeded(), **options).frames
    generator = seeded()
    for _ in range(5):  # the posterior's draws come first
        torch.randn(1, 4, 4, 4, generator=generator)
    noise = torch.randn(5, 4, 4, 4, generator=generator).transpose(0, 1)[None]
    actual = ours(PROMPT, video, latents=noise, guidance_rescale=0.0, **options).frames
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_a_network_that_acts_frame_by_frame_gives_the_same_video_for_any_chunks(seeded):
    unet = tiny.stock_video_unet()
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "temp_convs" in name and ".conv4." in name or ".proj_out." in name and "temp_attentions" in name:
                parameter.zero_()
            if name.startswith("transformer_in.proj_out."):
                parameter.zero_()
    pipe = tiny.enhancer(unet=unet)
    options = {"num_inference_steps": 4, "guidance_rescale": 0.0}
    whole = enhanced(pipe, clip(9), seeded, chunk_size=9, **options)
    for chunk_size, overlap, blending in [(6, 2, "paper"), (4, 2, "released"), (5, 0, "paper")]:
        options |= {"chunk_size": chunk_size, "overlap": overlap, "blending": blending}
        torch.testing.assert_close(enhanced(pipe, clip(9), seeded, **options), whole, atol=1e-4, rtol=1e-4)


def test_noise_does_not_depend_on_how_the_chunks_are_blended(pipe, seeded):
    one_chunk = [enhanced(pipe, clip(6), seeded, blending=blending) for blending in ("paper", "released")]
    assert torch.equal(*one_chunk)
    ways = [lambda overlap, generator, keep=keep: keep for keep in (0, 2)]
    left, right = (enhanced(pipe, clip(10), seeded, blending=way, num_inference_steps=1) for way in ways)
    assert torch.equal(left[:, :4], right[:, :4]) and torch.equal(
        left[:, 6:], right[:, 6:]
    )  # one step: (0, 6), (4, 10)
    assert not torch.equal(left[:, 4:6], right[:, 4:6])


def test_no_network_ever_sees_more_than_its_share_of_the_video(seeded):
    pipe, unet, encoded, decoded = tiny.enhancer(), [], [], []
    pipe.unet.register_forward_pre_hook(lambda _, inputs: unet.append(inputs[0].shape[2]))
    pipe.vae.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    pipe.vae.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(len(inputs[0])))
    enhanced(pipe, iter(clip(21)), seeded, frames_per_batch=4, num_inference_steps=2)
    assert set(unet) == {6} and max(encoded) == max(decoded) == 4


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_other_schedulers_make_a_video_and_leave_nothing_behind(scheduler, seeded):
    pipe = tiny.enhancer(scheduler=scheduler(**tiny.BETAS))
    first, again = (enhanced(pipe, clip(8), seeded, num_inference_steps=3) for _ in range(2))
    assert first.isfinite().all() and torch.equal(first, again)


def test_strength_and_noise_timestep_are_two_names_of_one_start(pipe, seeded):
    steps = []

    def note(pipe, step, timestep, tensors):
        steps.append(int(timestep))
        return {}

    trailing = DDIMScheduler(**tiny.BETAS, clip_sample=False, timestep_spacing="trailing")
    options = {"num_inference_steps": 10, "callback_on_step_end": note, "guidance_scale": 1.0}
    by_default = enhanced(tiny.enhancer(scheduler=trailing), clip(2), seeded, **options)
    assert len(steps) == 6 and steps[0] == 599  # T' = 600 of the paper
    by_timestep = enhanced(tiny.enhancer(scheduler=trailing), clip(2), seeded, noise_timestep=600, **options)
    assert torch.equal(by_default, by_timestep)
    recommended = tiny.enhancer(scheduler=trailing, call_defaults={"noise_timestep": 300})
    steps.clear()
    enhanced(recommended, clip(2), seeded, **options)
    assert len(steps) == 3
    steps.clear()
    enhanced(recommended, clip(2), seeded, strength=0.1, **options)
    assert len(steps) == 1


def test_less_strength_stays_closer_to_the_video(pipe, seeded):
    video, options = clip(6), {"num_inference_steps": 10, "guidance_scale": 1.0, "output_type": "latent"}
    kept = pipe(PROMPT, video, strength=1e-3, generator=seeded(), **options).frames
    weak, strong = (pipe(PROMPT, video, strength=s, generator=seeded(), **options).frames for s in (0.2, 1.0))
    assert (weak - kept).square().mean() < (strong - kept).square().mean()


def test_a_batch_is_the_single_videos_side_by_side(pipe, seeded):
    prompts, videos = ["a red circle", "a blue square"], [clip(8), clip(8, seed=1)]
    batch = torch.stack(videos).transpose(1, 2)
    generators = [seeded(0), seeded(1)]
    together = pipe(prompts, batch, generator=generators, output_type="pt").frames
    for index in range(2):
        alone = pipe(prompts[index], videos[index], generator=seeded(index), output_type="pt").frames
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-4)


def test_one_video_under_several_prompts_and_several_results_of_each(pipe, seeded):
    options = {"num_inference_steps": 2, "num_videos_per_prompt": 2}
    assert enhanced(pipe, clip(3), seeded, prompt=["a red circle", "a blue square"], **options).shape[0] == 4
    assert enhanced(pipe, clip(3)[None].transpose(1, 2).expand(3, -1, -1, -1, -1), seeded, **options).shape[0] == 6


def test_embedded_prompts_do_what_the_prompts_do(pipe, seeded):
    embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True, "blue")
    expected = enhanced(pipe, clip(3), seeded, negative_prompt="blue")
    bare = tiny.enhancer(text_encoder=None, tokenizer=None)
    options = {"prompt": None, "prompt_embeds": embeds}
    assert torch.equal(enhanced(bare, clip(3), seeded, negative_prompt_embeds=negative, **options), expected)
    with pytest.raises(ValueError, match="needs negative_prompt_embeds"):
        enhanced(bare, clip(3), seeded, **options)
    with pytest.raises(ValueError, match="has no text encoder; got prompt"):
        enhanced(bare, clip(3), seeded)


def test_outputs_come_in_every_form_with_the_size_asked_for(pipe, seeded):
    options = {"num_inference_steps": 2, "height": 11, "width": 6}
    tensor = enhanced(pipe, clip(3), seeded, **options)
    (array,) = pipe(PROMPT, clip(3), generator=seeded(), return_dict=False, **options)[0]
    assert array.shape == (3, 11, 6, 3) and np.allclose(array, tensor[0].permute(0, 2, 3, 1))
    images = pipe(PROMPT, clip(3), generator=seeded(), output_type="pil", **options).frames[0]
    assert len(images) == 3 and images[0].size == (6, 11)
    assert pipe(PROMPT, clip(3), output_type="latent", **options).frames.shape == (1, 4, 3, 6, 3)


def test_sizes_follow_the_proportions_and_padding_can_be_cut_again():
    assert wanted_size((256, 320), None, None) == (256, 320)
    assert wanted_size((256, 320), 512, None) == (512, 640) and wanted_size((256, 320), None, 100) == (80, 100)
    assert wanted_size((256, 320), 720, 720) == (720, 720) and wanted_size((1, 900), None, 3) == (1, 3)
    video = clip(2, 9, 14)[None].transpose(1, 2)
    wide = padded(video, 8)
    assert wide.shape[-2:] == (16, 16) and torch.equal(wide[..., :9, :14], video)
    assert torch.equal(wide[..., 9, :14], video[..., 8, :]) and padded(video[..., :8, :8], 8).shape[-1] == 8
    assert scaled(video, 9, 14) is video and scaled(video, 18, 7).shape[-2:] == (18, 7)
    flat = torch.full_like(video, 0.25)
    torch.testing.assert_close(scaled(flat, 20, 20), torch.full((1, 3, 2, 20, 20), 0.25))


def test_callbacks_can_read_change_and_end_the_denoising(pipe, seeded):
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append((step, sorted(tensors), tensors["latents"].shape[2]))
        pipe._interrupt = step == 1
        return {"latents": torch.zeros_like(tensors["latents"])}

    chunks = []
    options = {"callback_on_step_end": watch, "callback_on_step_end_tensor_inputs": ["latents", "prediction"]}
    options["callback_on_chunk_end"] = lambda pipe, index, chunk: chunks.append((index, chunk.start))
    latents = pipe(PROMPT, clip(9), generator=seeded(), output_type="latent", **options).frames
    assert seen == [(0, ["latents", "prediction"], 9), (1, ["latents", "prediction"], 9)]
    assert not latents.any() and chunks == [(0, 0), (1, 6)] and pipe.num_timesteps == 3


def test_guidance_is_read_anew_at_every_step(pipe, seeded):
    def off(pipe, step, timestep, tensors):
        pipe._guidance_scale = 1.0
        return {}

    plain, changed = enhanced(pipe, clip(3), seeded), enhanced(pipe, clip(3), seeded, callback_on_step_end=off)
    assert not torch.equal(plain, changed)


def test_a_lower_dtype_gives_a_video_near_the_float32_one(seeded):
    expected = enhanced(tiny.enhancer(), clip(7), seeded)
    frames = enhanced(tiny.enhancer().to(torch.bfloat16), clip(7), seeded)
    assert frames.dtype == torch.float32 and (frames - expected).abs().mean() < 0.05


def test_a_saved_enhancer_loads_and_makes_the_same_video(pipe, seeded, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = VideoEnhancerPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.call_defaults == pipe.config.call_defaults
    assert torch.equal(enhanced(loaded, clip(7), seeded), enhanced(pipe, clip(7), seeded))
    with pytest.raises(ValueError, match="VideoEnhancerPipeline"):
        LongVideoPipeline.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_stock_text_to_video_folder_or_pipeline_is_an_enhancer(pipe, seeded, tmp_path):
    stock = TextToVideoSDPipeline(**tiny.text_to_video_parts())
    stock.save_pretrained(tmp_path)
    expected = enhanced(pipe, clip(7), seeded)
    options = dict(pipe.config.call_defaults)
    for enhancer in (VideoEnhancerPipeline.from_pretrained(tmp_path), VideoEnhancerPipeline.from_pipe(stock)):
        enhancer.set_progress_bar_config(disable=True)
        assert torch.equal(enhanced(enhancer, clip(7), seeded, **options), expected)
