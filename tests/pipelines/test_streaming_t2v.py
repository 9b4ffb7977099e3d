"""StreamingT2V: chunks, their memories, and everything a video can begin with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from longvid import ConditionalAttentionModule, LongVideoPipeline, StreamingT2VPipeline, StreamState
from longvid.modules import AddedConditioning, ConcatenatedConditioning
from longvid.pipelines.chunk_plan import plan_chunks
from longvid.video.codec import decode_video

PROMPT = "a red circle moving right"


@pytest.fixture(scope="module")
def pipe():
    return tiny.streaming_t2v()


def chunks(pipe, seeded, seed=0, **options):
    options = {"prompt": PROMPT, "num_frames": 20, "generator": seeded(seed), **options}
    return list(pipe.stream(**options))


def frames(made):
    return torch.cat([chunk.frames for chunk in made], dim=2)


@pytest.mark.parametrize("num_frames", [1, 5, 16, 17, 24, 30])
def test_every_number_of_frames_is_made_exactly(pipe, seeded, num_frames):
    made = chunks(pipe, seeded, num_frames=num_frames, output_type="latent")
    assert [chunk.start for chunk in made] == [0, *range(16, num_frames, 8)]
    assert frames(made).shape == (1, 4, num_frames, 4, 4)


def test_the_stream_and_the_call_are_equal_bit_for_bit(pipe, seeded):
    called = pipe(PROMPT, num_frames=20, generator=seeded(), output_type="pt").frames
    assert torch.equal(called.transpose(1, 2), frames(chunks(pipe, seeded)))


def test_the_beginning_does_not_depend_on_the_length(pipe, seeded):
    assert torch.equal(frames(chunks(pipe, seeded)), frames(chunks(pipe, seeded, num_frames=30))[:, :, :20])


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_stream_continues_bit_for_bit(pipe, seeded, tmp_path, stop):
    whole = chunks(pipe, seeded, num_frames=30)
    whole[stop - 1].state.save(tmp_path / "state.safetensors")
    state = StreamState.load(tmp_path / "state.safetensors")
    rest = list(pipe.stream(PROMPT, num_frames=30, resume=state))
    assert torch.equal(frames(rest), frames(whole[stop:]))


@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_began_with_an_image_or_a_video_goes_on_as_it_was_planned(pipe, seeded, kind):
    given = {kind: torch.rand((3, 32, 32) if kind == "image" else (9, 3, 32, 32), generator=seeded(1))}
    whole = chunks(pipe, seeded, **given)
    rest = list(pipe.stream(PROMPT, num_frames=20, resume=whole[1].state, **given))
    assert [chunk.start for chunk in rest] == [chunk.start for chunk in whole[2:]]
    assert torch.equal(frames(rest), frames(whole[2:]))


def test_what_is_handed_from_chunk_to_chunk_does_not_grow(pipe, seeded):
    stream = pipe.stream(PROMPT, num_frames=math.inf, generator=seeded())
    sizes = [{name: value.shape for name, value in next(stream).state.context.items()} for _ in range(3)]
    assert sizes[0] == sizes[1] == sizes[2] == {"frames": (1, 3, 8, 32, 32), "anchor": (1, 16)}


def test_a_chunk_continues_the_last_frames_and_keeps_to_the_anchor(pipe, seeded):
    def second(**context):
        state = StreamState(1, {**first.state.context, **context}, first.state.keys, first.state.fingerprint)
        return next(iter(pipe.stream(PROMPT, num_frames=20, resume=state))).frames

    first, last = chunks(pipe, seeded)
    assert torch.equal(second(), last.frames)
    assert not torch.equal(second(frames=-first.state.context["frames"]), last.frames)
    assert not torch.equal(second(anchor=-first.state.context["anchor"]), last.frames)


def test_fresh_modules_leave_the_base_model_as_it_is(seeded):
    unet = tiny.video_unet()
    cam = ConditionalAttentionModule.from_unet(unet, frame_encoder_widths=(4, 4, 8, 8))
    fresh = tiny.streaming_t2v(unet=unet, cam=cam, apm=None, image_encoder=None)
    first, second = chunks(fresh, seeded, num_frames=24, latents=torch.randn(1, 4, 24, 4, 4, generator=seeded(3)))
    noise = torch.randn(1, 4, 24, 4, 4, generator=seeded(3))[:, :, 8:]
    alone = next(iter(fresh.stream(PROMPT, num_frames=16, latents=noise, eta=0.0, output_type="latent")))
    conditioned = list(fresh.stream(PROMPT, num_frames=24, latents=torch.cat([noise[:, :, :8], noise], 2), eta=0.0,
                                    output_type="latent"))[1]  # fmt: skip
    torch.testing.assert_close(conditioned.frames, alone.frames[:, :, 8:])
    assert first.frames.shape[2] + second.frames.shape[2] == 24


def test_equal_weights_of_text_and_anchor_are_the_two_branch_guidance(pipe, seeded, monkeypatch):
    calls = []
    unet = type(pipe.unet).forward
    monkeypatch.setattr(type(pipe.unet), "forward", lambda *a, **k: calls.append(len(a[1])) or unet(*a, **k))
    two = chunks(pipe, seeded, guidance_scale=4.0)[1].frames
    assert calls == [2] * 2
    assert torch.equal(chunks(pipe, seeded, guidance_scale=4.0, anchor_guidance_scale=4.0)[1].frames, two)
    calls.clear()
    three = chunks(pipe, seeded, guidance_scale=4.0, anchor_guidance_scale=2.0)[1].frames
    assert calls == [2, 3] and not torch.equal(three, two)
    calls.clear()
    chunks(pipe, seeded, guidance_scale=1.0)
    assert calls == [1] * 2


def test_guidance_is_the_one_of_the_paper(pipe, seeded):
    """Eq. 13, from the three predictions it names."""
    from longvid.pipelines.chunk_predictor import ChunkPredictor

    sample, t = torch.randn(1, 4, 16, 4, 4, generator=seeded()), torch.tensor(400)
    texts = torch.randn(2, 1, 12, tiny.TEXT_WIDTH, generator=seeded(1))
    images = torch.randn(2, 1, 16, generator=seeded(2))
    with torch.no_grad():
        branches = [
            {"text": texts[i], "frames": None, "context": pipe.apm(texts[i], images[j])}
            for i, j in ((0, 0), (0, 1), (1, 1))
        ]
        both, text_only, neither = (
            pipe.unet(sample, t, branch["context"], return_dict=False)[0] for branch in branches
        )
        predict = ChunkPredictor(pipe.unet, None, branches=branches, weights=lambda: (5.0, 3.0))
        expected = neither + 5.0 * (text_only - neither) + 3.0 * (both - text_only)
        torch.testing.assert_close(predict(sample, t), expected, rtol=1e-4, atol=1e-4)


def test_an_image_comes_back_as_the_first_frame_and_is_continued(pipe, seeded):
    image = torch.rand(3, 32, 32, generator=seeded(1))
    made = chunks(pipe, seeded, image=image)
    assert [(chunk.start, chunk.num_frames) for chunk in made] == [(0, 1), (1, 8), (9, 8), (17, 3)]
    torch.testing.assert_close(made[0].frames[0, :, 0], image)
    torch.testing.assert_close(made[0].state.context["frames"][0, :, 3] / 2 + 0.5, image)
    other = chunks(pipe, seeded, image=Image.fromarray(np.zeros((32, 32, 3), np.uint8)))
    assert not torch.equal(other[1].frames, made[1].frames)


def test_a_video_is_continued_by_new_frames_only(pipe, seeded):
    video = torch.rand(12, 3, 32, 32, generator=seeded(1))
    made = chunks(pipe, seeded, video=video)
    assert [(chunk.start, chunk.num_frames) for chunk in made] == [(0, 8), (8, 8), (16, 4)]
    later = torch.cat([torch.rand(3, 3, 32, 32, generator=seeded(2)), video[-8:]])
    assert not torch.equal(chunks(pipe, seeded, video=later)[0].frames, made[0].frames)  # another anchor: frame 0
    same = chunks(pipe, seeded, video=later, anchor_image=video[0])
    assert torch.equal(same[0].frames, made[0].frames)
    assert torch.equal(chunks(pipe, seeded, video=later, anchor_frame=3)[0].frames[0, :, 0].isnan().any(),
                       torch.tensor(False))  # fmt: skip


def test_the_anchor_can_be_any_frame_of_the_first_chunk(pipe, seeded):
    made = chunks(pipe, seeded)
    for frame in (0, 5, -1):
        context = chunks(pipe, seeded, anchor_frame=frame)[0].state.context
        expected = pipe.embed_anchor(made[0].frames[:, :, frame] * 2 - 1)
        torch.testing.assert_close(context["anchor"], expected, rtol=1e-4, atol=1e-5)


def test_another_pipeline_makes_the_first_chunk(pipe, seeded):
    asked = {}

    def text_to_video(prompt, num_frames, height, width, generator, output_type, negative_prompt=None, speed=1):
        asked.update(prompt=prompt, num_frames=num_frames, size=(height, width), kind=output_type, speed=speed)
        return (torch.rand(len(prompt), num_frames + 9, 3, 64, 64, generator=seeded(4)),)

    options = {"first_chunk_pipeline": text_to_video, "first_chunk_options": {"speed": 3}}
    made = chunks(pipe, seeded, prompt=[PROMPT, "a blue square"], **options)
    expected = {"prompt": [PROMPT, "a blue square"], "num_frames": 16, "size": (32, 32), "kind": "pt", "speed": 3}
    assert asked == expected
    assert [(chunk.start, chunk.num_frames) for chunk in made] == [(0, 16), (16, 4)]
    short = chunks(pipe, seeded, num_frames=5, **options)
    assert short[0].frames.shape[2] == 5


def test_an_image_goes_to_an_image_to_video_pipeline(pipe, seeded):
    given = []

    def image_to_video(image, num_frames, **_):
        given.append(image)
        return type("Output", (), {"frames": [[image] * num_frames]})

    image = Image.fromarray(np.full((64, 64, 3), 77, np.uint8))
    made = chunks(pipe, seeded, image=image, first_chunk_pipeline=image_to_video)
    assert given[0].size == (32, 32) and given[0].getpixel((3, 3)) == (77, 77, 77)
    torch.testing.assert_close(made[0].frames, torch.full_like(made[0].frames, 77 / 255))


def test_every_chunk_has_the_prompt_of_its_first_new_frame(pipe, seeded):
    prompts = [PROMPT, "a blue square"]
    story = chunks(pipe, seeded, prompt=prompts, frames_per_prompt=[16, 8], num_frames=24)
    first, second = (chunks(pipe, seeded, prompt=prompt, num_frames=24) for prompt in prompts)
    assert torch.equal(story[0].frames, first[0].frames)
    assert not torch.equal(story[1].frames, first[1].frames)
    resumed = pipe.stream("a blue square", num_frames=24, resume=first[0].state)
    assert torch.equal(next(resumed).frames, story[1].frames)
    assert second[1].start == 16


def test_context_kept_as_latents_gives_the_same_video(seeded):
    made = [chunks(tiny.streaming_t2v(context=kind), seeded) for kind in ("pixels", "latents")]
    torch.testing.assert_close(frames(made[0]), frames(made[1]), rtol=1e-4, atol=1e-4)
    kept = made[1][0].state.context["frames"]
    assert kept.shape == (1, 4, 8, 4, 4)
    pixels = made[0][0].state.context["frames"]
    torch.testing.assert_close(decode_video(tiny.vae(latent_channels=4), kept).clamp(-1, 1), pixels)


@pytest.mark.parametrize("kind", [AddedConditioning, ConcatenatedConditioning])
def test_the_ablations_of_cam_take_its_place(kind, seeded):
    unet = tiny.video_unet()
    options = {"frame_encoder_widths": (4, 4, 8, 8)} if kind is AddedConditioning else {}
    pipe = tiny.streaming_t2v(unet=unet, cam=tiny.trained(kind.from_unet(unet, **options), 5))
    made = chunks(pipe, seeded)
    assert frames(made).shape[2] == 20 and not torch.equal(
        made[1].frames, chunks(tiny.streaming_t2v(), seeded)[1].frames
    )


def test_saving_and_loading_keeps_the_pipeline(pipe, seeded, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = LongVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is StreamingT2VPipeline
    assert loaded.fingerprint() == pipe.fingerprint()
    torch.testing.assert_close(frames(chunks(loaded, seeded)), frames(chunks(pipe, seeded)), rtol=1e-4, atol=1e-4)


def test_the_size_may_be_any_that_the_vae_takes(pipe, seeded):
    made = chunks(pipe, seeded, height=40, width=72)
    assert frames(made).shape == (1, 3, 20, 40, 72)


@pytest.mark.parametrize("opening", [0, 1, 16])
@pytest.mark.parametrize("num_frames", [1, 9, 16, 40])
def test_a_plan_covers_every_frame_once_and_is_cut_as_a_sequence(num_frames, opening):
    plan = plan_chunks(num_frames, size=16, overlap=8, opening=opening)
    windows = list(plan)
    assert [frame for window in windows for frame in range(num_frames)[window.new]] == list(range(num_frames))
    assert [window.index for window in windows] == list(range(len(windows)))
    assert list(plan[1:]) == windows[1:]
    assert all(window.stop - window.start == 16 and window.overlap == 8 for window in windows[bool(opening) :])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video": torch.zeros(7, 3, 32, 32)}, "a video to be continued must have at least 8 frames; got 7"),
        ({"video": torch.zeros(9, 3, 32, 32), "anchor_frame": 9}, "video has 9 frames; frame 9 was asked for"),
        ({"video": torch.zeros(9, 3, 32, 32), "image": torch.zeros(3, 32, 32)}, "got video and image"),
        ({"anchor_frame": 16}, "anchor_frame must be a frame of the first chunk, which has 16; got 16"),
        ({"image": torch.zeros(3, 32, 32), "anchor_frame": 1}, "which has 1; got 1"),
        ({"anchor_frame": 0.5}, "anchor_frame must be a whole number; got 0.5"),
        ({"anchor_guidance_scale": -1}, "anchor_guidance_scale must be a number of at least 0; got -1"),
        ({"anchor_image": torch.zeros(2, 3, 32, 32)}, "expected one anchor_image, or one for each of 1 prompts; got 2"),
        ({"first_chunk_options": {"eta": 1}}, "first_chunk_options go to a first_chunk_pipeline; got none"),
        ({"first_chunk_pipeline": lambda **_: (torch.zeros(1, 9, 3, 32, 32),)}, "at least 16 frames; got 9"),
        ({"first_chunk_pipeline": lambda **_: (torch.zeros(2, 16, 3, 32, 32),)}, "must make 1 videos; got 2"),
        ({"first_chunk_pipeline": lambda **_: (torch.zeros(16, 3, 32, 32),)}, r"must make videos \(B, F, 3, H, W\)"),
        ({"first_chunk_pipeline": lambda prompt: ([],), "image": torch.zeros(3, 32, 32)}, "that takes an image"),
        ({"height": 60}, "height must be a multiple of 8 for this model; got 60"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_what_came(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        next(iter(pipe.stream(**{"prompt": PROMPT, "num_frames": 20, **options})))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 16}, "overlap must be from 1 to chunk_size - 1; got overlap=16, chunk_size=16"),
        ({"context": "tokens"}, "context must be one of pixels, latents; got 'tokens'"),
        ({"image_encoder": None}, "expected an image_encoder too; got None"),
        ({"call_defaults": {"steps": 3}}, "call_defaults must name arguments of the call; got steps"),
    ],
)
def test_constants_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny.streaming_t2v(**options)
