from __future__ import annotations

import dataclasses
import gc
import inspect
import math
import resource

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import tiny
from longvid import LongVideoPipeline, StreamState
from longvid.pipelines.art_v_request import ARTVRequest

PROMPT = "a red circle moving right"
FAST = {"num_inference_steps": 1, "guidance_scale": 1.0, "reference_guidance_scale": 0, "anchor_guidance_scale": 0}


def frames_of(stream):
    return torch.cat([chunk.frames for chunk in stream], dim=2)


def test_the_stream_and_the_call_are_equal_bit_for_bit(art_v, seeded):
    options = {"num_frames": 4, "output_type": "pt", "num_videos_per_prompt": 2}
    called = art_v(PROMPT, generator=seeded(), **options).frames
    streamed = frames_of(art_v.stream(PROMPT, generator=seeded(), **options))
    assert torch.equal(called, streamed.transpose(1, 2))


def test_a_window_does_not_depend_on_how_long_the_video_is(art_v, seeded):
    short = art_v(PROMPT, num_frames=2, generator=seeded(), output_type="latent").frames
    long = art_v(PROMPT, num_frames=4, generator=seeded(), output_type="latent").frames
    assert torch.equal(short, long[:, :, :2])


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_stream_continues_bit_for_bit(art_v, seeded, tmp_path, stop):
    prompts = ["a red circle", "a blue square"]
    whole = list(art_v.stream(prompts, frames_per_prompt=2, generator=seeded()))
    whole[stop - 1].state.save(tmp_path / "state.safetensors")
    state = StreamState.load(tmp_path / "state.safetensors")
    rest = list(art_v.stream(prompts, frames_per_prompt=2, resume=state, generator=seeded(99)))
    assert [chunk.start for chunk in rest] == list(range(stop, 4))
    assert torch.equal(frames_of(rest), frames_of(whole[stop:]))


def test_a_state_of_another_model_or_batch_is_refused(art_v, seeded):
    chunk = next(iter(art_v.stream(PROMPT, generator=seeded())))
    with pytest.raises(ValueError, match="made by another model; different: unet"):
        tiny.art_v(unet=tiny.anchored_unet(5)).stream(PROMPT, resume=chunk.state)
    with pytest.raises(ValueError, match="holds 1 videos; the request makes 2"):
        art_v.stream([PROMPT] * 2, resume=chunk.state)


def test_a_state_at_the_end_has_nothing_left_to_collect(art_v, seeded):
    *_, last = art_v.stream(PROMPT, num_frames=2, generator=seeded())
    assert list(art_v.stream(PROMPT, num_frames=2, resume=last.state)) == []
    with pytest.raises(ValueError, match="nothing is left to make"):
        art_v(PROMPT, num_frames=2, resume=last.state)


def live_bytes() -> int:
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_the_memory_of_a_stream_does_not_grow_with_its_length(seeded):
    unet = tiny.anchored_unet(**tiny.ONE_LEVEL)
    pipe = tiny.art_v(scheduler=DDIMScheduler(**tiny.BETAS), unet=unet, mask_network=None, vae=tiny.vae(factor=2))
    live, peak = {}, {}
    options = {"num_frames": 129, "height": 32, "width": 32, **FAST}
    for index, chunk in enumerate(pipe.stream(PROMPT, generator=seeded(), **options)):
        if index in (16, 128):
            live[index] = live_bytes()
            peak[index] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert chunk.frames.shape == (1, 3, 1, 32, 32)
    assert live[128] == live[16]
    assert peak[128] - peak[16] < 16 * 1024  # KiB: nothing outside tensors piles up either


@pytest.mark.parametrize("num_frames", [10_000_000, math.inf])
def test_a_stream_without_an_end_starts_at_once(art_v, seeded, num_frames):
    stream = art_v.stream(PROMPT, num_frames=num_frames, generator=seeded())
    chunks = [next(stream), next(stream)]
    stream.close()
    assert [chunk.start for chunk in chunks] == [0, 1]


def test_an_endless_video_cannot_be_collected(art_v):
    with pytest.raises(ValueError, match="use stream"):
        art_v(PROMPT, num_frames=math.inf)


def test_hooks_are_freed_also_when_the_consumer_stops_early(seeded):
    pipe, freed = tiny.art_v(), []
    pipe.maybe_free_model_hooks = lambda: freed.append(True)
    stream = pipe.stream(PROMPT, generator=seeded())
    next(stream)
    assert not freed
    stream.close()
    assert freed == [True]


def test_gradients_stay_on_for_the_consumer_between_chunks(art_v, seeded):
    with torch.enable_grad():
        for chunk in art_v.stream(PROMPT, num_frames=2, generator=seeded()):
            assert torch.is_grad_enabled() and not chunk.frames.requires_grad


def test_two_streams_of_one_pipeline_can_be_read_in_turn(art_v, seeded):
    pair = zip(
        art_v.stream(PROMPT, generator=seeded(1)),
        art_v.stream("a blue square", generator=seeded(2), num_inference_steps=1),
        strict=True,
    )
    mixed = [torch.cat([a.frames, b.frames]) for a, b in pair]
    alone = frames_of(art_v.stream(PROMPT, generator=seeded(1)))
    assert torch.equal(torch.cat(mixed, dim=2)[:1], alone)


@pytest.mark.parametrize("output_type", ["np", "pt", "pil", "latent"])
def test_every_output_type_has_the_layout_of_diffusers_video_pipelines(art_v, seeded, output_type):
    output = art_v(PROMPT, num_frames=2, generator=seeded(), output_type=output_type, height=32, width=48)
    frames = output.frames
    if output_type == "pil":
        assert len(frames) == 1 and len(frames[0]) == 2 and frames[0][0].size == (48, 32)
        return
    shape = {"np": (1, 2, 32, 48, 3), "pt": (1, 2, 3, 32, 48), "latent": (1, tiny.LATENT_CHANNELS, 2, 4, 6)}
    assert tuple(frames.shape) == shape[output_type]
    assert isinstance(frames, np.ndarray) == (output_type == "np")
    if output_type != "latent":
        assert frames.min() >= 0 and frames.max() <= 1


def test_without_return_dict_the_frames_are_the_first_of_a_tuple(art_v, seeded):
    output = art_v(PROMPT, num_frames=1, generator=seeded(), return_dict=False)
    assert isinstance(output, tuple) and output[0].shape == (1, 1, 64, 64, 3)


def test_stream_and_call_share_one_documented_signature(art_v):
    fields = [field.name for field in dataclasses.fields(ARTVRequest)]
    for function in (art_v.stream, art_v.__call__):
        parameters = inspect.signature(function).parameters
        assert set(parameters) == set(fields) and list(parameters)[:3] == ["prompt", "image", "video"]
        assert all(parameter.default is not parameter.empty for parameter in parameters.values())
        assert all(f"{name}:" in function.__doc__ for name in fields)
    assert set(inspect.signature(LongVideoPipeline.__call__).parameters) < {"self", *fields}


def test_an_unknown_argument_is_refused_as_by_any_function(art_v):
    with pytest.raises(TypeError, match="num_frame"):
        art_v(PROMPT, num_frame=3)


def test_recommended_defaults_apply_where_nothing_was_asked(seeded):
    pipe = tiny.art_v(call_defaults={"num_inference_steps": 3, "num_frames": 2, "height": 32, "guidance_scale": 1.0})
    output = pipe(PROMPT, generator=seeded(), output_type="pt")
    assert output.frames.shape == (1, 2, 3, 32, 64) and pipe.num_timesteps == 5 and pipe.guidance_scale == 1.0
    assert pipe(PROMPT, num_frames=1, num_inference_steps=1, output_type="pt").frames.shape[1] == 1
    with pytest.raises(ValueError, match="call_defaults must name arguments of the call; got stepz"):
        tiny.art_v(call_defaults={"stepz": 3})


def test_the_progress_bar_counts_frames_and_can_be_turned_off(seeded, capsys):
    pipe = tiny.art_v()
    pipe.set_progress_bar_config(disable=False)
    pipe(PROMPT, num_frames=3, generator=seeded())
    shown = capsys.readouterr().err
    assert "3/3" in shown and "frame" in shown
    pipe.set_progress_bar_config(disable=True)
    pipe(PROMPT, num_frames=3, generator=seeded())
    assert capsys.readouterr().err == ""
