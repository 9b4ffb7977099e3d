"""HARIVO: windows, their joints, and what happens inside one."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

import tiny
from longvid import GuidanceSchedule, HARIVOPipeline, LongVideoPipeline, StreamState, mitigated
from longvid.modules import frame_context
from longvid.pipelines import window_frames
from longvid.pipelines.frame_context import empty_text, window_text
from longvid.pipelines.harivo_request import HARIVORequest
from longvid.pipelines.seeding import window_generator
from longvid.pipelines.window_strategies import Joint, Streamed
from longvid.samplers import guided

PROMPT = "a red circle moving right"
LATENT = {"output_type": "latent"}


@pytest.fixture(scope="module")
def pipe():
    return tiny.harivo()


def chunks(pipe, seeded, **options):
    return list(pipe.stream(**{"prompt": PROMPT, "num_frames": 12, "generator": seeded(), **LATENT, **options}))


def frames(made):
    return torch.cat([chunk.frames for chunk in made], dim=2)


# --- any length ------------------------------------------------------------------------------------------------------


def rebuilt(pipe, **changes):
    """The same parts with other ones or other constants among them."""
    constants = {"window_size": 6, "overlap": 2, "call_defaults": pipe.config["call_defaults"]}
    built = HARIVOPipeline(**{**pipe.components, **constants, **changes})
    built.set_progress_bar_config(disable=True)
    return built


@pytest.mark.parametrize(("num_frames", "starts"), [(1, [0]), (7, [0, 6]), (12, [0, 6, 10])])
def test_every_number_of_frames_is_made_exactly(pipe, seeded, num_frames, starts):
    made = chunks(pipe, seeded, num_frames=num_frames)
    assert [chunk.start for chunk in made] == starts and frames(made).shape == (1, 4, num_frames, 4, 4)


@pytest.mark.parametrize(("num_frames", "starts"), [(1, [0]), (6, [0]), (13, [0, 6, 12])])
def test_a_joint_video_is_one_window_that_is_handed_out_in_parts(pipe, seeded, num_frames, starts):
    told = []
    options = {"strategy": "joint", "num_inference_steps": 1, "num_frames": num_frames}
    joint = chunks(
        pipe, seeded, **options, callback_on_chunk_end=lambda _, index, chunk: told.append((index, chunk.start))
    )
    assert [chunk.start for chunk in joint] == starts and frames(joint).shape == (1, 4, num_frames, 4, 4)
    assert told == [(0, start) for start in starts]
    assert [chunk.ends_window for chunk in joint] == [chunk.stop == num_frames for chunk in joint]
    assert [chunk.state.next_window for chunk in joint] == [int(chunk.ends_window) for chunk in joint]
    *_, again = chunks(pipe, seeded, **options, resume=joint[0].state) if len(starts) > 1 else joint
    assert torch.equal(again.frames, joint[-1].frames)


def test_an_interrupted_joint_video_is_handed_out_as_a_whole_and_its_state_makes_it_again(pipe, seeded):
    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return {}

    options = {"num_frames": 13, "strategy": "joint", "num_inference_steps": 2}
    joint = chunks(pipe, seeded, callback_on_step_end=interrupt, **options)
    assert frames(joint).shape[2] == 13 and {chunk.state.next_window for chunk in joint} == {0}
    whole = frames(chunks(pipe, seeded, **options))
    assert not torch.equal(frames(joint), whole)
    assert torch.equal(frames(chunks(pipe, seeded, resume=joint[-1].state, **options)), whole)


def test_pixels_of_a_joint_video_are_those_of_its_latents_and_never_there_as_a_whole(pipe, seeded, monkeypatch):
    decoded, decode = [], window_frames.decode_video
    monkeypatch.setattr(
        window_frames, "decode_video", lambda vae, z, **kw: decoded.append(z.shape[2]) or decode(vae, z, **kw)
    )
    options = {"num_frames": 13, "strategy": "joint", "num_inference_steps": 1}
    latents = frames(chunks(pipe, seeded, **options))
    assert not decoded
    made = []
    for chunk in pipe.stream(PROMPT, generator=seeded(), output_type="pt", **options):
        made.append(chunk.frames)
        assert sum(decoded) == chunk.stop  # and nothing of what comes behind it
    expected = (decode(pipe.vae, latents) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(torch.cat(made, dim=2), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strategy", ["streamed", "held", "joint"])
def test_the_stream_and_the_call_are_equal_bit_for_bit(pipe, seeded, strategy):
    options = {"output_type": "pt", "strategy": strategy}
    called = pipe(PROMPT, num_frames=8, generator=seeded(), **options).frames
    assert torch.equal(called.transpose(1, 2), frames(chunks(pipe, seeded, num_frames=8, **options)))
    assert called.min() >= 0 and called.max() <= 1


def test_the_beginning_of_a_streamed_video_does_not_depend_on_its_length(pipe, seeded):
    endless = pipe.stream(PROMPT, num_frames=math.inf, generator=seeded(), **LATENT)
    long = torch.cat([next(endless).frames for _ in range(2)], dim=2)
    assert torch.equal(frames(chunks(pipe, seeded, num_frames=9)), long[:, :, :9])


@pytest.mark.parametrize("strategy", ["streamed", "held"])
def test_a_resumed_stream_continues_bit_for_bit_from_its_last_latents(pipe, seeded, strategy, tmp_path):
    whole = chunks(pipe, seeded, num_frames=14, strategy=strategy)
    for stop, end in ((1, 6), (2, 10), (3, 14)):
        chunk = whole[stop - 1]
        assert list(chunk.state.context) == ["latents"] and chunk.start + chunk.frames.shape[2] == end
        assert torch.equal(chunk.state.context["latents"], chunk.frames[:, :, -2:])
        chunk.state.save(tmp_path / "state.safetensors")
        state = StreamState.load(tmp_path / "state.safetensors")
        rest = list(pipe.stream(PROMPT, num_frames=14, resume=state, strategy=strategy, **LATENT))
        assert len(rest) == 3 - stop and (not rest or torch.equal(frames(rest), frames(whole[stop:])))


def test_one_window_is_the_same_however_longer_videos_are_made(pipe, seeded):
    made = [frames(chunks(pipe, seeded, num_frames=6, strategy=each)) for each in ("streamed", "joint", Streamed())]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_overlapping_windows_share_their_noise_at_any_overlap(pipe):
    for overlap in (2, 4, 5):
        pipe, keys = rebuilt(pipe, overlap=overlap), (5,)
        pipe._device = torch.device("cpu")
        request = pipe.check_inputs(HARIVORequest(PROMPT, num_frames=30))
        plan = pipe.plan(request)
        noise = [pipe.prepare_noise(w, request, window_generator(keys, w.index), keys) for w in plan]
        for before, behind in zip(noise, noise[1:], strict=False):
            assert torch.equal(before[:, :, 6 - overlap :], behind[:, :, :overlap])
        whole = torch.cat([noise[0], *(part[:, :, overlap:] for part in noise[1:])], dim=2)
        assert whole[0].flatten(2).std() == pytest.approx(1, abs=0.1) and not torch.equal(
            noise[0][:, :, 0], noise[1][:, :, 0]
        )


def test_a_window_continues_the_latents_it_is_handed(pipe, seeded):
    first, second = chunks(pipe, seeded, num_frames=10)

    def continued(latents):
        state = StreamState(1, {"latents": latents}, first.state.keys, first.state.fingerprint)
        return next(iter(pipe.stream(PROMPT, num_frames=10, resume=state, **LATENT))).frames

    assert torch.equal(continued(first.state.context["latents"]), second.frames)
    assert not torch.equal(continued(-first.state.context["latents"]), second.frames)


def test_windows_that_go_on_may_hear_the_tokens_of_an_empty_prompt(pipe, seeded):
    """The first window is as it was; the others are those of tokens that are the same for every prompt."""
    empty = rebuilt(pipe, continuing_tokens="empty")
    texts = [
        window_text(rows[None], pipe.frame_tokens, empty=empty_text(empty, None))
        for rows in torch.randn(2, 1, 12, tiny.TEXT_WIDTH, generator=seeded())
    ]
    first, later = ([text.context([0] * 6, goes_on=goes_on) for text in texts] for goes_on in (False, True))
    assert torch.equal(first[0][:, :, :12], later[0][:, :, :12])
    assert torch.equal(later[0][:, :, 12:], later[1][:, :, 12:]) and not torch.equal(
        first[0][:, :, 12:], first[1][:, :, 12:]
    )
    made = pipe.frame_tokens(pipe.encode_prompt([""], "cpu", 1, False)[0])
    torch.testing.assert_close(later[0][:, :, 12:], made)
    one, other = (frames(chunks(each, seeded, num_frames=10, num_inference_steps=1)) for each in (pipe, empty))
    assert torch.equal(one[:, :, :6], other[:, :, :6]) and not torch.equal(one[:, :, 6:], other[:, :, 6:])


def test_a_model_that_sees_frames_one_by_one_makes_the_same_video_by_any_windows(seeded):
    """With shared noise and one prompt, a frame then depends on its own noise alone."""
    base = tiny.small_stable_diffusion()
    fresh = HARIVOPipeline.from_base(
        base, frame_tokens=None, window_size=6, overlap=2, part_options={"motion_adapter": {"num_heads": 2}}
    )
    fresh.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "mg_scale": 0.0, "latents": torch.randn(1, 4, 10, 4, 4, generator=seeded(3))}
    joint, one = (frames(chunks(pipe, seeded, num_frames=10, **options, strategy=strategy))
                  for pipe, strategy in ((fresh, "joint"), (fresh, Joint(mg_scope="video"))))  # fmt: skip
    streamed = frames(chunks(fresh, seeded, num_frames=10, **options))
    images = base([PROMPT] * 10, latents=options["latents"][0].transpose(0, 1), num_inference_steps=2, **LATENT).images
    for made in (joint, one, streamed):
        torch.testing.assert_close(made[0].transpose(0, 1), images, atol=1e-4, rtol=1e-4)


# --- one prediction --------------------------------------------------------------------------------------------------


@torch.no_grad()
def predictor_of(pipe, *, window=0, **options):
    pipe.scheduler.set_timesteps(10)
    request = pipe.check_inputs(HARIVORequest(PROMPT, num_frames=6, **options))
    pipe._guidance_scale, pipe._device = request.guidance_scale, torch.device("cpu")
    conditions, plan = pipe.encode_conditions(request), pipe.plan(request)
    return pipe.predictor(
        plan[window], StreamState(0, {}, (1,), {}), conditions, generator=window_generator((1,), window), extras={}
    )


def test_the_prediction_is_the_mapped_latents_under_frame_wise_text_guided_and_then_mitigated(pipe, seeded):
    sample, t = torch.randn(1, 4, 6, 4, 4, generator=seeded()), torch.tensor(400)
    with torch.no_grad():
        made = predictor_of(pipe, guidance_scale=5.0, mg_scale=0.7)(sample, t)
        mapped = pipe.mapping_network(sample)
        embeds = pipe.encode_prompt(PROMPT)
        contexts = [{"c": frame_context(text, 6, pipe.frame_tokens(text))[None]} for text in embeds]
        predict = guided(lambda x, t, c: pipe.unet(mapped, t, c["c"][0]).sample, contexts, [4.0], batched=False)
        expected = mitigated(predict, pipe.scheduler, 0.7)(sample, t)
        plain = predictor_of(pipe, guidance_scale=5.0, mg_scale=0.0)(sample, t)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain, predict(sample, t), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(made, plain)


def test_branches_one_by_one_are_those_of_a_batch(pipe, seeded):
    sample = torch.randn(1, 4, 6, 4, 4, generator=seeded())
    with torch.no_grad():
        both = [predictor_of(pipe, batched_guidance=batched)(sample, torch.tensor(400)) for batched in (True, False)]
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("change", [{"mapping_network": None}, {"frame_tokens": None}, {"tokens_for_negative": False}])
def test_every_part_can_be_left_out_and_has_an_effect(pipe, seeded, change):
    sample, t = torch.randn(1, 4, 6, 4, 4, generator=seeded()), torch.tensor(400)
    with torch.no_grad():
        assert not torch.allclose(predictor_of(rebuilt(pipe, **change))(sample, t), predictor_of(pipe)(sample, t))


def test_every_frame_hears_its_own_prompt(pipe, seeded):
    """Without temporal layers at work, the frames of a story are those of the videos of its prompts."""
    base = tiny.unet(**tiny.SMALL_UNET)
    from longvid.modules import motion_unet, new_motion_adapter

    still = motion_unet(base, new_motion_adapter(base, num_heads=2, max_num_frames=8))
    pipe = rebuilt(pipe, unet=still, mapping_network=None)
    options = {"num_frames": 6, "mg_scale": 0.0, "num_inference_steps": 1}
    prompts = [PROMPT, "a blue square"]
    story = frames(chunks(pipe, seeded, prompt=prompts, frames_per_prompt=[2, 4], **options))
    first, second = (frames(chunks(pipe, seeded, prompt=prompt, **options)) for prompt in prompts)
    torch.testing.assert_close(story, torch.cat([first[:, :, :2], second[:, :, 2:]], dim=2), atol=1e-5, rtol=1e-5)


def test_one_video_of_a_batch_is_the_video_made_alone(pipe, seeded):
    prompts = [PROMPT, "a blue square"]
    together = frames(chunks(pipe, seeded, prompt=prompts, generator=[seeded(0), seeded(1)], num_frames=8))
    for index, prompt in enumerate(prompts):
        alone = frames(chunks(pipe, seeded, prompt=prompt, generator=seeded(index), num_frames=8))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_other_schedulers_and_kinds_of_prediction_work_with_both_strategies(pipe, seeded, kind):
    scheduler = EulerAncestralDiscreteScheduler(**tiny.BETAS, prediction_type=kind)
    pipe = rebuilt(pipe, scheduler=scheduler)
    for strategy in ("streamed", Joint(mg_scope="video")):
        made = [frames(chunks(pipe, seeded, strategy=strategy, num_frames=8)) for _ in range(2)]
        assert made[0].isfinite().all() and torch.equal(*made)


def test_the_schedule_of_the_paper_guides_the_first_steps_more_strongly(pipe, seeded):
    seen = []

    def note(pipe, step, timestep, given):
        seen.append((int(timestep), pipe.guidance_scale))

    options = {"num_frames": 1, "num_inference_steps": 4, "callback_on_step_end": note}
    scales = ({"high": 12.5, "low": 7.5}, GuidanceSchedule(), lambda t: 12.5 if t >= 700 else 7.5)
    made = [frames(chunks(pipe, seeded, guidance_scale=scale, **options)) for scale in scales]
    assert seen == [(751, 12.5), (501, 7.5), (251, 7.5), (1, 7.5)] * 3
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    assert not torch.equal(made[0], frames(chunks(pipe, seeded, guidance_scale=12.5, **options)))


def test_the_mitigating_gradient_may_have_a_schedule_a_limit_and_both_sides(pipe, seeded):
    options = [{}, {"mg_scale": {"high": 5.0, "low": 1.0}}, {"mg_max_ratio": 0.001}, {"mg_two_sided": True}]
    made = [frames(chunks(pipe, seeded, num_frames=4, **each)) for each in options]
    assert all(not torch.equal(made[0], other) for other in made[1:])


def test_it_is_saved_and_loaded_with_all_its_parts(pipe, seeded, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = LongVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is HARIVOPipeline and loaded.config["window_size"] == 6
    assert torch.equal(*(frames(chunks(each, seeded, num_frames=3)) for each in (loaded, pipe)))
    assert loaded.fingerprint() == pipe.fingerprint()


def test_half_precision_runs_and_gives_finite_frames(seeded):
    half = tiny.harivo().to(dtype=torch.bfloat16)
    assert frames(chunks(half, seeded, num_frames=7, num_inference_steps=1)).isfinite().all()


def test_without_a_text_encoder_embeddings_make_the_same_video(pipe, seeded):
    embeds, negative = pipe.encode_prompt(PROMPT)
    rest = rebuilt(pipe, text_encoder=None, tokenizer=None)
    made = chunks(rest, seeded, prompt=None, prompt_embeds=embeds, negative_prompt_embeds=negative, num_frames=3)
    assert torch.equal(frames(made), frames(chunks(pipe, seeded, num_frames=3)))


# --- what diffusers demands ------------------------------------------------------------------------------------------


def test_the_call_has_every_argument_that_diffusers_expects_with_a_default(pipe):
    parameters = inspect.signature(type(pipe).__call__).parameters
    required = {
        "prompt", "negative_prompt", "prompt_embeds", "negative_prompt_embeds", "height", "width", "guidance_scale",
        "num_inference_steps", "generator", "latents", "output_type", "return_dict", "callback_on_step_end",
        "callback_on_step_end_tensor_inputs", "num_videos_per_prompt",
    }  # fmt: skip
    assert required <= set(parameters) and pipe._callback_tensor_inputs[0] == "latents"
    assert all(each.default is not each.empty for name, each in parameters.items() if name != "self")


@pytest.mark.parametrize(("kind", "shape"), [("np", (1, 2, 32, 32, 3)), ("pt", (1, 2, 3, 32, 32)), ("pil", None)])
def test_frames_come_in_the_kind_that_is_asked_for(pipe, seeded, kind, shape):
    options = {"num_frames": 2, "num_inference_steps": 1, "output_type": kind, "generator": seeded()}
    made = pipe(PROMPT, **options).frames
    assert made[0][1].size == (32, 32) if shape is None else made.shape == shape
    assert isinstance(pipe(PROMPT, **options, return_dict=False), tuple)


def test_the_components_and_from_pipe_build_an_equal_pipeline(pipe, seeded):
    again = HARIVOPipeline.from_pipe(pipe)
    again.set_progress_bar_config(disable=True)
    made = [frames(chunks(each, seeded, num_frames=2)) for each in (pipe, rebuilt(pipe), again)]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_guidance_changes_the_video_and_a_scale_of_one_turns_it_off(pipe, seeded):
    made = [frames(chunks(pipe, seeded, num_frames=2, guidance_scale=scale)) for scale in (7.5, 1.0, 0.0)]
    assert not torch.equal(made[0], made[1]) and torch.equal(made[1], made[2])


def test_a_step_may_be_changed_or_be_the_last(pipe, seeded):
    def zeros(pipe, step, timestep, given):
        return {"latents": torch.zeros_like(given["latents"])}

    def stop(pipe, step, timestep, given):
        pipe._interrupt = True

    assert not frames(chunks(pipe, seeded, num_frames=2, callback_on_step_end=zeros)).any()
    stopped = chunks(pipe, seeded, num_frames=12, callback_on_step_end=stop)
    assert len(stopped) == 1 and stopped[0].state.next_window == 0


@pytest.mark.slow
@pytest.mark.parametrize("offload_type", ["leaf_level", "block_level"])
def test_group_offload_changes_nothing(pipe, seeded, offload_type):
    expected, moved = frames(chunks(pipe, seeded, num_frames=7)), tiny.harivo()
    moved.enable_group_offload(
        onload_device="cpu", offload_device="cpu", offload_type=offload_type, num_blocks_per_group=1
    )
    torch.testing.assert_close(frames(chunks(moved, seeded, num_frames=7)), expected, atol=1e-5, rtol=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mg_scale": -1}, "mg_scale must be a number of at least 0; got -1"),
        ({"mg_scale": "strong"}, "mg_scale must be a number of at least 0; got 'strong'"),
        ({"mg_max_ratio": 0}, "mg_max_ratio must be above 0, or None; got 0"),
        ({"guidance_scale": {"hihg": 3}}, "a guidance schedule has high, low, until, num_train_timesteps; got hihg"),
        ({"strategy": "both"}, "strategy must be one of streamed, held, joint, or a WindowStrategy; got 'both'"),
        ({"strategy": "joint", "num_frames": math.inf}, "use strategy='streamed'"),
        ({"control": {0: torch.zeros(3, 32, 32)}}, "control needs a ControlNet"),
        ({"control_scale": -1.0}, "control_scale must be a number of at least 0; got -1"),
        ({"image": torch.zeros(3, 32, 32)}, "image is shown through an IP-Adapter: call load_ip_adapter first"),
        ({"image_embeds": [torch.zeros(1, 1, 16)]}, "image_embeds is shown through an IP-Adapter"),
        *(
            ({"num_frames": 12, "resume": StreamState(1, context, (1,)), **other}, message)
            for context, other, message in [
                (
                    {"latents": torch.zeros(1, 4, 3, 4, 4)},
                    {},
                    r"latents must have shape \(1, 4, 2, 4, 4\) .*got \(1, 4, 3",
                ),
                ({"latents": torch.zeros(1, 4, 2, 4, 4)}, {"height": 64}, r"shape \(1, 4, 2, 8, 4\) for this request"),
                (
                    {"latents": torch.zeros(1, 4, 2, 4, 4)},
                    {"num_frames": 1},
                    r"shape \(1, 4, 1, 4, 4\) for this request",
                ),
                ({"latents": torch.zeros(2, 4, 2, 4, 4)}, {}, "the saved latents holds 2 videos; the request makes 1"),
                ({"latents": torch.zeros(1, 4, 2, 4, 4).long()}, {}, "latents must be floating point; got torch.int64"),
                ({"latents": torch.zeros(1)}, {"strategy": "joint"}, r"latents must have shape \(1, 4, 2, 4, 4\)"),
                ({"newest": torch.zeros(1, 4, 4, 4)}, {}, "a saved state of this model holds latents; got newest"),
                ({}, {}, "a saved state of this model holds latents; got none"),
            ]
        ),
        ({"num_frames": 0}, "num_frames must be a whole number of at least 1; got 0"),
        ({"height": 30}, "height must be a multiple of 8 for this model; got 30"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 9, 32)},
            "frame_tokens read 12 text tokens; prompt_embeds have 9",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream(**{"prompt": PROMPT, "num_frames": 6, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 9}, "have positions for 8 frames: expected a window_size from 1 to 8; got 9"),
        ({"overlap": 6}, "overlap must be at least 0 and below window_size; got overlap=6, window_size=6"),
        ({"frame_token_mode": "loop"}, "frame_token_mode must be one of None, slice, interpolate, tile; got 'loop'"),
        ({"window_size": 8, "frame_token_mode": "slice"}, "tokens for 6 frames; a window of 8 cannot be a slice"),
        ({"controlnet_input": "clean"}, "controlnet_input must be one of mapped, raw; got 'clean'"),
        ({"call_defaults": {"mg_alpha": 3}}, "call_defaults must name arguments of the call; got mg_alpha"),
        ({"vae": tiny.vae()}, "vae was made for another base: it has 8 latent channels, the UNet has 4"),
    ],
)
def test_parts_and_constants_that_do_not_fit_are_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        rebuilt(pipe, **options)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="mg_scope must be one of window, video; got 'clip'"):
        Joint(mg_scope="clip")
