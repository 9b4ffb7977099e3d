"""What is made for Stable Diffusion works on HARIVO: each against the Stable Diffusion pipeline that it was made for.

A HARIVO pipeline whose parts are new makes every frame as the image pipeline does, so whatever is loaded into both must
keep them equal.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import MotionAdapter, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import tiny
from longvid import FrameTokenGenerator, HARIVOPipeline
from longvid.modules import image_view, motion_adapter_of, new_motion_adapter
from longvid.pipelines.control_frames import ControlFrames
from longvid.pipelines.harivo_growth import grow_harivo

PROMPT = "a red circle"
HEADS = {"part_options": {"motion_adapter": {"num_heads": 2, "max_num_frames": 8}}}
FRAMES = 3
QUICK = {"num_inference_steps": 1, "output_type": "latent"}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh(base, **options):
    """A HARIVO model of new parts without frame tokens: the image model, frame by frame."""
    options = {"frame_tokens": None, "window_size": FRAMES, **HEADS, **options}
    pipe = HARIVOPipeline.from_base(base, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def video(pipe, prompt=PROMPT, **options):
    latents = noise(1, 4, FRAMES, 4, 4)
    return pipe(prompt, num_frames=FRAMES, latents=latents, mg_scale=0.0, **QUICK, **options).frames


def images(base, prompt=PROMPT, **options):
    latents = noise(1, 4, FRAMES, 4, 4)[0].transpose(0, 1)
    made = base([prompt] * FRAMES, latents=latents, guidance_scale=7.5, **QUICK, **options).images
    return made.transpose(0, 1)[None]


def assert_equal_videos(pipe, base, **options):
    expected = images(base, **options)
    torch.testing.assert_close(video(pipe, **options), expected, atol=1e-4, rtol=1e-4)
    return expected


@pytest.fixture(scope="module")
def base():
    """A base that nothing is loaded into; tests that load something build their own."""
    return tiny.small_stable_diffusion()


@pytest.fixture(scope="module")
def plain(base):
    return images(base)


# --- bases and motion adapters ---------------------------------------------------------------------------------------


def test_a_fresh_model_is_the_image_model_frame_by_frame(base, plain):
    pipe = fresh(base)
    torch.testing.assert_close(video(pipe), plain, atol=1e-4, rtol=1e-4)
    assert pipe.vae is base.vae and pipe.text_encoder is base.text_encoder and pipe.mapping_network is not None
    assert not any(torch.equal(a, b) for a, b in zip(pipe.unet.parameters(), base.unet.parameters(), strict=False)
                   if a.data_ptr() == b.data_ptr())  # fmt: skip


def test_new_parts_fit_the_base_and_are_not_trained(base):
    pipe = HARIVOPipeline.from_base(base, window_size=6, **HEADS)
    assert isinstance(pipe.frame_tokens, FrameTokenGenerator)
    expected = {"text_dim": 32, "num_text_tokens": 12, "num_frames": 6, "tokens_per_frame": 3}
    assert {name: pipe.frame_tokens.config[name] for name in expected} == expected
    assert pipe.config["overlap"] == 2 and not pipe.unet.training and not pipe.mapping_network.training


def test_a_published_motion_adapter_is_a_folder_and_makes_videos_at_once(base, tmp_path, plain):
    adapter = tiny.trained(new_motion_adapter(base.unet, num_heads=2, max_num_frames=24))
    adapter.save_pretrained(tmp_path)
    pipe = HARIVOPipeline.from_base(base, motion_adapter=tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert (pipe.mapping_network, pipe.frame_tokens, pipe.config["window_size"]) == (None, None, 16)
    assert pipe.scheduler.config["beta_schedule"] == "linear" and pipe.scheduler.config["clip_sample"] is False
    made = video(pipe)
    assert not torch.allclose(made, plain) and not torch.allclose(made, pipe_with_gradient(pipe))
    kept = grow_harivo(base, motion_adapter=adapter, beta_schedule="scaled_linear", window_size=20)
    assert kept["scheduler"].config["beta_schedule"] == "scaled_linear" and kept["window_size"] == 20


def pipe_with_gradient(pipe):
    latents = noise(1, 4, FRAMES, 4, 4)
    return pipe(PROMPT, num_frames=FRAMES, latents=latents, mg_scale=5.0, **QUICK).frames


def test_a_dreambooth_checkpoint_takes_the_place_of_the_image_model(tmp_path):
    pipe, style = tiny.harivo(), tiny.small_stable_diffusion(unet=tiny.unet(7, **tiny.SMALL_UNET))
    style.save_pretrained(tmp_path)
    restyled = pipe.with_base(tmp_path)
    view, mine = image_view(restyled.unet).state_dict(), style.unet.state_dict()
    assert view.keys() == mine.keys() and all(torch.equal(view[key], mine[key]) for key in mine)
    temporal = motion_adapter_of(pipe.unet).state_dict()
    assert all(
        torch.equal(value, temporal[key]) for key, value in motion_adapter_of(restyled.unet).state_dict().items()
    )
    assert restyled.mapping_network is pipe.mapping_network and restyled.config["window_size"] == 6
    restyled.set_progress_bar_config(disable=True)
    assert not torch.allclose(video(restyled), video(pipe))


# --- LoRA ------------------------------------------------------------------------------------------------------------


def lora_layers(network, targets, seed=4):
    torch.manual_seed(seed)
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=targets))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(network))
    return {key: value.detach().clone() for key, value in layers.items()}


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A LoRA of UNet and text encoder, as diffusers' training scripts save it."""
    folder, base = tmp_path_factory.mktemp("lora"), tiny.small_stable_diffusion()
    unet = lora_layers(base.unet, ["to_q", "to_k", "to_v", "to_out.0"])
    text = lora_layers(base.text_encoder, ["q_proj", "v_proj"])
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=unet, text_encoder_lora_layers=text)
    return folder


def kohya_file(path, width=tiny.TEXT_WIDTH):
    """A LoRA in the format of kohya's scripts, which most of the published ones have."""
    block, layers = "down_blocks_0_attentions_0_transformer_blocks_0", {}
    for name, (inner, outer) in {"attn2_to_k": (width, 8), "attn1_to_q": (8, 8), "ff_net_2": (32, 8)}.items():
        key = f"lora_unet_{block}_{name}"
        layers |= {f"{key}.lora_down.weight": noise(2, inner), f"{key}.lora_up.weight": noise(outer, 2, seed=1)}
        layers[f"{key}.alpha"] = torch.tensor(2.0)
    save_file(layers, path)
    return path


def test_a_lora_loads_acts_and_is_fused_as_in_the_image_pipeline(lora, plain):
    base = tiny.small_stable_diffusion()
    pipe = fresh(base)
    pipe.load_lora_weights(lora, adapter_name="style")
    temporal = [name for name, _ in pipe.unet.named_parameters() if "motion_modules" in name]
    assert temporal and not any("lora" in name for name in temporal)
    base = tiny.small_stable_diffusion()
    base.load_lora_weights(lora, adapter_name="style")
    loaded = assert_equal_videos(pipe, base)
    assert not torch.allclose(loaded, plain)
    pipe.set_adapters("style", 0.3)
    base.set_adapters("style", 0.3)
    weak = assert_equal_videos(pipe, base)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(video(pipe), weak, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(weak, loaded) and not torch.allclose(weak, plain)


@pytest.mark.slow
def test_a_lora_in_kohyas_format_loads_and_acts_and_is_unloaded(tmp_path, plain):
    path = kohya_file(tmp_path / "style.safetensors")
    base = tiny.small_stable_diffusion()
    pipe = fresh(base)
    pipe.load_lora_weights(path)
    other = tiny.small_stable_diffusion()
    other.load_lora_weights(path)
    assert not torch.allclose(assert_equal_videos(pipe, other), plain)
    pipe.unload_lora_weights()
    torch.testing.assert_close(video(pipe), plain, atol=1e-4, rtol=1e-4)


def test_a_lora_for_another_base_is_refused_and_named_before_anything_is_changed(base, tmp_path):
    pipe = fresh(base)
    before = set(pipe.unet.state_dict())
    other = kohya_file(tmp_path / "xl.safetensors", width=2048)
    with pytest.raises(
        ValueError, match=r"another base \(Stable Diffusion XL\): .*to_k takes 2048 features, here it takes 32"
    ):
        pipe.load_lora_weights(other)
    deep = {"unet.down_blocks.7.attentions.0.to_q.lora_A.weight": noise(2, 8)}
    deep["unet.down_blocks.7.attentions.0.to_q.lora_B.weight"] = noise(8, 2)
    with pytest.raises(ValueError, match="its layer down_blocks.7.attentions.0.to_q does not exist in this UNet"):
        pipe.load_lora_weights(deep)
    assert set(pipe.unet.state_dict()) == before


def test_temporal_layers_with_a_lora_in_them_are_not_taken_for_their_own(base):
    pipe = tiny.harivo()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=r".*motion_modules.*to_q"))
    with pytest.raises(ValueError, match="the temporal layers hold a LoRA: unload_lora_weights first"):
        pipe.with_base(base)


# --- textual inversion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_textual_inversion_becomes_a_word_of_the_prompt(tmp_path, vectors):
    path = tmp_path / "learned_embeds.safetensors"
    save_file({"<thing>": noise(vectors, tiny.TEXT_WIDTH)[0 if vectors == 1 else slice(None)].contiguous()}, path)
    pipe, base = fresh(tiny.small_stable_diffusion()), tiny.small_stable_diffusion()
    before = pipe.encode_prompt("a <thing>", "cpu")[0]
    for each in (pipe, base):
        each.load_textual_inversion(path)
    for mine, theirs in zip(pipe.encode_prompt("a <thing>", "cpu"), base.encode_prompt("a <thing>", "cpu", 1, True),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(pipe.encode_prompt("a <thing>", "cpu")[0], before)
    assert_equal_videos(pipe, base, prompt="a red <thing>")


# --- IP-Adapter ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ip_adapter(tmp_path_factory):
    """An IP-Adapter as it is published: weights beside the image encoder's folder."""
    folder, unet = tmp_path_factory.mktemp("ip"), tiny.unet(**tiny.SMALL_UNET)
    tiny.image_encoder().save_pretrained(folder / "models" / "image_encoder")
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    numbers = [index for index, name in enumerate(unet.attn_processors) if name in names]
    widths = [unet.get_submodule(name.removesuffix(".processor")).inner_dim for name in names]
    weights = {"image_proj.proj.weight": noise(4 * 32, 16), "image_proj.proj.bias": noise(4 * 32),
               "image_proj.norm.weight": torch.ones(32), "image_proj.norm.bias": torch.zeros(32)}  # fmt: skip
    for number, width in zip(numbers, widths, strict=True):
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{number}.{part}.weight"] = noise(width, 32, seed=number)
    save_file(weights, folder / "models" / "ip-adapter.safetensors")
    return folder


def test_an_image_is_shown_through_an_ip_adapter(ip_adapter, plain):
    pipe, base = fresh(tiny.small_stable_diffusion()), tiny.small_stable_diffusion()
    for each in (pipe, base):
        each.load_ip_adapter(ip_adapter, subfolder="models", weight_name="ip-adapter.safetensors")
    picture = torch.rand(3, 40, 32, generator=torch.Generator().manual_seed(0))
    shown = [(picture * 255).round().byte().permute(1, 2, 0).numpy()]
    expected = images(base, ip_adapter_image=[[shown[0]] * FRAMES])
    torch.testing.assert_close(video(pipe, image=picture), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, plain)
    both = pipe([PROMPT, PROMPT], [picture, 1 - picture], num_frames=2, latents=noise(2, 4, 2, 4, 4), **QUICK).frames
    assert both.shape[0] == 2 and both.isfinite().all()
    pipe.set_ip_adapter_scale(0.0)
    torch.testing.assert_close(video(pipe, image=picture), plain, atol=1e-4, rtol=1e-4)
    pipe.set_ip_adapter_scale(1.0)
    with torch.no_grad():
        pixels = pipe.feature_extractor(images=shown, return_tensors="pt").pixel_values
        embeds = pipe.image_encoder(pixels).image_embeds[:, None]
    torch.testing.assert_close(video(pipe, image_embeds=[embeds]), expected, atol=1e-4, rtol=1e-4)
    for options, message in (
        ({}, "an IP-Adapter is loaded: expected image or image_embeds"),
        ({"image": [picture] * 3}, "expected one image, or one for each of 1 prompts; got 3"),
        ({"image": "photo.png"}, "image must be a PIL image"),
        ({"image": picture, "image_embeds": [embeds]}, "either image or image_embeds; got both"),
        ({"image_embeds": [embeds, embeds]}, "one tensor for each of 1 adapters; got 2"),
        ({"image_embeds": [embeds[0]]}, r"image_embeds must hold tensors \(1, N, E\); got \(1, 16\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.stream(PROMPT, num_frames=2, **options)
    pipe.unload_ip_adapter()
    torch.testing.assert_close(video(pipe), plain, atol=1e-4, rtol=1e-4)


# --- ControlNet ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def controlled(base):
    network = tiny.control_network(base.unet)
    parts = {name: base.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    image_pipe = StableDiffusionControlNetPipeline(
        **parts, controlnet=network, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    image_pipe.set_progress_bar_config(disable=True)
    return fresh(base, controlnet=network), image_pipe


PICTURES = torch.rand(FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_a_controlnet_controls_every_frame_as_in_the_image_pipeline(controlled, plain):
    pipe, base = controlled
    expected = images(base, image=PICTURES)
    assert not torch.allclose(expected, plain)
    torch.testing.assert_close(video(pipe, control=PICTURES), expected, atol=1e-4, rtol=1e-4)
    for control in (list(PICTURES), dict(enumerate(PICTURES)), PICTURES.transpose(0, 1)[None]):
        frames, pictures = ControlFrames(control, FRAMES, (32, 32), (1, 1)).inside(0, FRAMES)
        assert frames == [0, 1, 2] and torch.allclose(pictures[0].transpose(0, 1), PICTURES, atol=1e-6)
    weak = images(base, image=PICTURES, controlnet_conditioning_scale=0.4)
    torch.testing.assert_close(video(pipe, control=PICTURES, control_scale=0.4), weak, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(video(pipe, control=PICTURES, control_scale=lambda t: 0.0), plain, atol=1e-4, rtol=1e-4)


def test_a_controlnet_controls_only_the_frames_that_are_named(controlled, plain):
    pipe, base = controlled
    everywhere = images(base, image=PICTURES)
    named = video(pipe, control={0: PICTURES[0], -1: PICTURES[2]})
    torch.testing.assert_close(named[:, :, [0, 2]], everywhere[:, :, [0, 2]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(named[:, :, 1], plain[:, :, 1], atol=1e-4, rtol=1e-4)


def test_named_frames_are_found_in_every_window(controlled):
    pipe, _ = controlled
    options = {"num_frames": 5, "latents": noise(1, 4, 5, 4, 4), "mg_scale": 0.0, **QUICK}
    for strategy in ("streamed", "joint"):
        free = pipe(PROMPT, strategy=strategy, **options).frames
        made = pipe(PROMPT, strategy=strategy, control={4: PICTURES[0]}, **options).frames
        assert (made - free).abs().amax((0, 1, 3, 4)).gt(1e-3).tolist() == [False] * 4 + [True]


@pytest.mark.slow
@pytest.mark.parametrize("option", [{"controlnet_input": "raw"}, {"controlnet_tokens": "frame"}])
def test_what_the_controlnet_sees_and_reads_can_be_chosen(option):
    unet = tiny.unet(**tiny.SMALL_UNET)
    network = tiny.control_network(unet)
    pipe = tiny.harivo(controlnet=network)
    other = HARIVOPipeline(**pipe.components, window_size=6, overlap=2, **option)
    made = [video(each, control={0: PICTURES[0]}) for each in (pipe, other)]
    assert not torch.allclose(*made)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (PICTURES[:2], "control must have a picture for each of 3 frames, or name its frames in a dictionary; got 2"),
        ({3: PICTURES[0]}, "control names frame 3 of a video of 3 frames"),
        ({-4: PICTURES[0]}, "control names frame -4 of a video of 3 frames"),
        ({"first": PICTURES[0]}, "control must name frames by whole numbers; got 'first'"),
        ({0: "sketch.png"}, "control of frame 0 must be a PIL image"),
        ({0: [PICTURES[0]] * 2}, "expected one control of frame 0, or one for each of 1 prompts; got 2"),
        ("sketch.mp4", "control must be a dictionary from frame numbers to images.*got str"),
    ],
)
def test_control_pictures_that_do_not_match_are_refused_before_any_work(controlled, control, message):
    with pytest.raises(ValueError, match=message):
        controlled[0].stream(PROMPT, num_frames=FRAMES, control=control)


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"motion_adapter": MotionAdapter((16, 16, 16), motion_norm_num_groups=4, motion_num_attention_heads=2)},
            r"made for another base: it has block_out_channels \(16, 16, 16\), this UNet has \(8, 16\)",
        ),
        ({"motion_adapter": 3}, "motion_adapter must be a MotionAdapter or the name of one; got int"),
        ({"motion_adapter": "no/such folder"}, "cannot load the motion adapter 'no/such folder'"),
        ({"part_options": {"mapping": {}}}, "part_options must name new parts; got mapping"),
        ({"frame_tokens": FrameTokenGenerator(16, 12, 3)}, "another base: it has 16 text features, the UNet has 32"),
        ({"frame_tokens": FrameTokenGenerator(32, 77, 3)}, "frame_tokens read 77 text tokens; the tokenizer makes 12"),
        ({"window_size": 33}, "have positions for 8 frames: expected a window_size from 1 to 8; got 33"),
    ],
)
def test_parts_for_another_base_are_refused(base, options, message):
    with pytest.raises(ValueError, match=message):
        fresh(base, **options)
