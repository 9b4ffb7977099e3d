"""The ways to ask ART-V for a video."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from longvid.pipelines.seeding import mix
from longvid.video.codec import decode_video, encode_video

PROMPT = "a red circle"
LATENT = {"output_type": "latent"}


def encoded(pipe, frame):
    """The latent of one frame (3, H, W) in [0, 1]."""
    with torch.no_grad():
        return encode_video(pipe.vae, frame[None, :, None] * 2 - 1)


def test_the_second_frame_sees_the_first_twice_and_then_the_last_two(art_v, seeded):
    frames, states = [], []
    for chunk in art_v.stream(PROMPT, num_frames=3, generator=seeded(), **LATENT):
        frames.append(chunk.frames[:, :, 0])
        states.append(chunk.state.context)
    assert all(torch.equal(states[0][name], frames[0]) for name in ("newest", "older", "anchor"))
    assert torch.equal(states[2]["newest"], frames[2]) and torch.equal(states[2]["older"], frames[1])
    assert torch.equal(states[2]["anchor"], frames[0])


def test_an_image_becomes_the_first_frame(art_v, seeded):
    image = torch.rand(3, 64, 64, generator=seeded(1))
    latents = art_v(PROMPT, image, num_frames=2, generator=seeded(), **LATENT).frames
    torch.testing.assert_close(latents[:, :, :1], encoded(art_v, image))
    pixels = art_v(PROMPT, image, num_frames=1, output_type="pt").frames[0, 0]
    torch.testing.assert_close(pixels, image)  # it does not pass through the autoencoder
    other = art_v(PROMPT, 1 - image, num_frames=2, generator=seeded(), **LATENT).frames
    assert not torch.equal(other[:, :, 1], latents[:, :, 1])


def test_every_video_of_a_batch_can_have_its_own_image(art_v, seeded):
    images = [Image.fromarray(np.full((64, 64, 3), value, np.uint8)) for value in (0, 255)]
    prompts = [PROMPT, "a blue square"]
    latents = art_v(prompts, images, num_frames=1, num_videos_per_prompt=2, **LATENT).frames
    assert torch.equal(latents[0], latents[1]) and torch.equal(latents[2], latents[3])
    assert not torch.equal(latents[1], latents[2])
    same = art_v(prompts, images[0], num_frames=1, **LATENT).frames
    assert torch.equal(same[0], same[1])


def test_another_pipeline_can_make_the_first_frame(art_v, seeded):
    asked = {}

    def first_frame(prompt, height, width, generator, output_type):
        asked.update(prompt=prompt, size=(height, width), generator=generator, output_type=output_type)
        return SimpleNamespace(images=torch.full((len(prompt), 3, height, width), 0.25))

    latents = art_v(
        [PROMPT, "a blue square"], num_frames=2, first_frame_pipeline=first_frame, generator=seeded(), **LATENT
    ).frames
    assert asked["prompt"] == [PROMPT, "a blue square"] and asked["size"] == (64, 64) and asked["output_type"] == "pt"
    torch.testing.assert_close(latents[:1, :, :1], encoded(art_v, torch.full((3, 64, 64), 0.25)))
    key = int(torch.randint(0, 2**63 - 1, (1,), generator=seeded()).item())
    assert asked["generator"].initial_seed() == mix(key, 0)


@pytest.mark.parametrize("kind", ["pil", "np", "tuple"])
def test_the_first_frame_may_come_back_in_any_form(art_v, kind):
    array = np.full((64, 64, 3), 64, np.uint8)
    images = {"pil": [Image.fromarray(array)], "np": array[None] / np.float32(255), "tuple": ([array],)}[kind]
    latents = art_v(PROMPT, num_frames=1, first_frame_pipeline=lambda **_: images, **LATENT).frames
    torch.testing.assert_close(latents, encoded(art_v, torch.full((3, 64, 64), 64 / 255)))


def test_a_diffusers_pipeline_makes_the_first_frame(art_v, seeded):
    base = tiny.stable_diffusion()
    base.set_progress_bar_config(disable=True)
    options = {"num_frames": 2, "height": 32, "width": 32, "negative_prompt": "blue"}

    def quick(prompt, **kwargs):
        return base(prompt, num_inference_steps=1, **kwargs)

    frames = [
        art_v(PROMPT, first_frame_pipeline=quick, generator=seeded(), **options, **LATENT).frames for _ in range(2)
    ]
    assert torch.equal(*frames)


def test_a_video_is_continued_from_its_last_two_frames_with_its_last_as_anchor(art_v, seeded):
    video = torch.rand(4, 3, 64, 64, generator=seeded(1))
    options = {"num_frames": 2, "generator": seeded(), **LATENT}
    (first, second) = art_v.stream(PROMPT, video=video, **options)
    assert (first.start, second.start) == (0, 1)
    torch.testing.assert_close(first.state.context["older"], encoded(art_v, video[-1])[:, :, 0])
    torch.testing.assert_close(first.state.context["anchor"], encoded(art_v, video[-1])[:, :, 0])
    assert torch.equal(first.state.context["newest"], first.frames[:, :, 0])


def test_the_anchor_of_a_continued_video_can_be_chosen(art_v, seeded):
    video = torch.rand(4, 3, 64, 64, generator=seeded(1))
    chunk = next(iter(art_v.stream(PROMPT, video=list(video), anchor_frame=0, generator=seeded())))
    torch.testing.assert_close(chunk.state.context["anchor"], encoded(art_v, video[0])[:, :, 0])
    for wrong in (4, -5):
        with pytest.raises(ValueError, match="4"):
            art_v.stream(PROMPT, video=video, anchor_frame=wrong)


def test_at_the_border_of_two_prompts_the_anchor_changes_and_the_references_do_not(art_v, seeded):
    prompts = ["a red circle", "a blue square", "a green circle"]
    stream = art_v.stream(prompts, frames_per_prompt=2, generator=seeded(), num_inference_steps=1, **LATENT)
    chunks = list(stream)
    frames = [chunk.frames[:, :, 0] for chunk in chunks]
    anchors = [chunk.state.context["anchor"] for chunk in chunks]
    expected = [0, 1, 1, 3, 3, 3]  # the anchor that the next frame is made with
    assert [next(i for i, frame in enumerate(frames) if torch.equal(frame, anchor)) for anchor in anchors] == expected
    for index, chunk in enumerate(chunks):
        assert torch.equal(chunk.state.context["newest"], frames[index])
        assert torch.equal(chunk.state.context["older"], frames[max(index - 1, 0)])


def test_every_frame_hears_the_prompt_of_its_segment(art_v, seeded):
    options = {"frames_per_prompt": 1, "generator": seeded(), "num_inference_steps": 1, **LATENT}
    first = art_v(["a red circle", "a blue square"], **options).frames
    second = art_v(["a red circle", "a green square"], **{**options, "generator": seeded()}).frames
    assert torch.equal(first[:, :, 0], second[:, :, 0]) and not torch.equal(first[:, :, 1], second[:, :, 1])


def test_embedded_prompts_give_the_same_video_as_their_text(art_v, seeded):
    prompts = ["a red circle", "a blue square"]
    embeds, negative = art_v.encode_prompt(prompts, negative_prompt="green")
    for extra in ({"num_frames": 1}, {"frames_per_prompt": 1}):
        extra = {**extra, "num_inference_steps": 1, "output_type": "pt"}
        text = art_v(prompts, negative_prompt="green", generator=seeded(), **extra).frames
        embedded = art_v(prompt_embeds=embeds, negative_prompt_embeds=negative, generator=seeded(), **extra).frames
        assert torch.equal(text, embedded)


def test_one_video_of_a_batch_is_the_video_made_alone(art_v, seeded):
    prompts = ["a red circle", "a blue square"]
    options = {"num_frames": 2, "output_type": "pt", "num_videos_per_prompt": 2}
    batch = art_v(prompts, generator=[seeded(seed) for seed in range(4)], **options).frames
    for index in range(4):
        alone = art_v(prompts[index // 2], num_frames=2, output_type="pt", generator=seeded(index)).frames
        torch.testing.assert_close(batch[index], alone[0], atol=1e-4, rtol=1e-4)


def test_a_batch_of_long_videos_tells_each_its_own_prompts(art_v, seeded):
    prompts = [["a red circle", "a blue square"], ["a green circle", "a red square"]]
    generators = [seeded(0), seeded(1)]
    options = {"frames_per_prompt": 1, "num_inference_steps": 1, "output_type": "pt"}
    batch = art_v(prompts, generator=generators, **options).frames
    alone = art_v(prompts[1], generator=seeded(1), **options).frames
    torch.testing.assert_close(batch[1], alone[0], atol=1e-4, rtol=1e-4)


def test_given_latents_are_the_starting_noise_of_every_frame(art_v, seeded):
    latents = torch.randn(1, tiny.LATENT_CHANNELS, 2, 8, 8, generator=seeded(3))
    options = {"num_frames": 2, "latents": latents, **LATENT}
    first = art_v(PROMPT, generator=seeded(0), **options).frames
    assert torch.equal(first, art_v(PROMPT, generator=seeded(0), **options).frames)
    assert not torch.equal(first, art_v(PROMPT, generator=seeded(0), num_frames=2, **LATENT).frames)


def test_reencoded_references_went_through_pixels(art_v, seeded):
    chunk = next(iter(art_v.stream(PROMPT, generator=seeded(), reencode=True, **LATENT)))
    with torch.no_grad():
        expected = encode_video(art_v.vae, decode_video(art_v.vae, chunk.frames).clamp(-1, 1))[:, :, 0]
    torch.testing.assert_close(chunk.state.context["newest"], expected)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 80), (48, 112)])
def test_any_size_that_the_networks_allow_is_made(art_v, seeded, height, width):
    output = art_v(PROMPT, num_frames=2, height=height, width=width, num_inference_steps=1, generator=seeded())
    assert output.frames.shape == (1, 2, height, width, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 40}, "height must be a multiple of 16 for this model; got 40"),
        ({"width": 0}, "width must be a multiple of 16 for this model; got 0"),
        ({"height": 64.0}, "height must be a multiple of 16"),
        ({"num_frames": -3}, "num_frames must be a whole number of at least 1; got -3"),
        ({"num_frames": 0}, "num_frames must be a whole number of at least 1; got 0"),
        ({"num_frames": 2.5}, "num_frames must be a whole number of at least 1; got 2.5"),
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt must be a whole number"),
        ({"guidance_scale": "high"}, "guidance_scale must be a number of at least 0; got 'high'"),
        ({"anchor_guidance_scale": "high"}, "anchor_guidance_scale must be a number; got 'high'"),
        ({"noise_level": 1000}, "noise_level must be a whole number from 0 to 999; got 1000"),
        ({"noise_level": 0.5}, "noise_level must be a whole number from 0 to 999; got 0.5"),
        ({"redraw": "never"}, "redraw must be one of frame, eval; got 'never'"),
        ({"output_type": "mp4"}, "output_type must be one of np, pt, pil, latent; got 'mp4'"),
        ({"generator": 3}, "generator must be a torch.Generator or a list of them; got int"),
        ({"generator": [torch.Generator()] * 2}, "one per video, 1; got 2"),
        ({"image": "photo.png"}, "image must be a PIL image"),
        ({"image": [torch.zeros(3, 64, 64)] * 3}, "expected one image, or one for each of 1 prompts; got 3"),
        ({"image": torch.full((3, 64, 64), 2.0)}, r"image must lie in \[0, 1\]"),
        ({"video": "clip.mp4"}, "video must be"),
        ({"video": []}, "video has no frames"),
        ({"image": torch.zeros(3, 64, 64), "video": torch.zeros(2, 3, 64, 64)}, "got image and video"),
        ({"image": torch.zeros(3, 64, 64), "first_frame_pipeline": print}, "got image and first_frame_pipeline"),
        ({"latents": torch.zeros(1, 8, 2, 8, 8)}, r"latents must have shape \(1, 8, 3, 8, 8\); got \(1, 8, 2, 8, 8\)"),
        ({"prompt_embeds": torch.zeros(1, 12, 32)}, "either prompt or prompt_embeds; got both"),
        ({"prompt": None}, "either prompt or prompt_embeds; got neither"),
        ({"prompt": ["a", "b"], "frames_per_prompt": 16, "num_frames": 64}, "need num_frames from 17 to 32; got"),
        ({"negative_prompt": "a", "negative_prompt_embeds": torch.zeros(1, 12, 32)}, "got both"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt must be one, or one for each of 1 prompts; got 2"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_what_came(art_v, options, message):
    with pytest.raises(ValueError, match=message):
        next(iter(art_v.stream(**{"prompt": PROMPT, **options})))


def test_a_first_frame_pipeline_that_makes_the_wrong_thing_is_refused(art_v):
    for made, message in (([], "the first frame is empty"), (torch.zeros(2, 3, 64, 64), "must make 1 images; got 2")):
        with pytest.raises(ValueError, match=message):
            art_v(PROMPT, first_frame_pipeline=lambda made=made, **_: (made,))
    with pytest.raises(ValueError, match="first_frame_pipeline needs prompt; got prompt_embeds"):
        art_v(prompt_embeds=torch.zeros(1, 12, 32), first_frame_pipeline=print)
