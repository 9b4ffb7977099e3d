from __future__ import annotations

import pytest
import torch

import tiny

PROMPT = "a red circle"


def test_the_step_callback_sees_every_call_of_the_scheduler_and_the_tensors_it_asked_for(art_v, seeded):
    seen = []

    def note(pipe, step, timestep, tensors):
        seen.append((step, float(timestep), {name: tuple(tensor.shape) for name, tensor in tensors.items()}))
        assert pipe.num_timesteps == 3
        return tensors

    names = ["latents", "prediction"]
    options = {"num_frames": 2, "num_inference_steps": 2, "generator": seeded()}
    art_v(PROMPT, callback_on_step_end=note, callback_on_step_end_tensor_inputs=names, **options)
    assert [step for step, _, _ in seen] == [0, 1, 2] * 2
    assert all(shapes == dict.fromkeys(names, (1, tiny.LATENT_CHANNELS, 1, 8, 8)) for _, _, shapes in seen)
    assert [timestep for _, timestep, _ in seen[:3]] == [float(t) for t in art_v.scheduler.timesteps]


def test_the_step_callback_can_change_the_latents(art_v, seeded):
    def blank(pipe, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])} if step == pipe.num_timesteps - 1 else None

    output = art_v(PROMPT, callback_on_step_end=blank, generator=seeded(), output_type="latent")
    assert not output.frames.any()


def test_the_guidance_scale_is_read_again_at_every_step_and_set_back_for_every_frame(art_v, seeded):
    seen = []

    def raise_it(pipe, step, timestep, tensors):
        pipe._guidance_scale += 1.0
        seen.append(pipe.guidance_scale)
        return tensors

    options = {"num_frames": 2, "guidance_scale": 2.0, "output_type": "latent"}
    changed = art_v(PROMPT, callback_on_step_end=raise_it, generator=seeded(), **options).frames
    assert seen == [3.0, 4.0, 5.0] * 2 and art_v.guidance_scale == 2.0 + art_v.num_timesteps
    assert not torch.equal(changed, art_v(PROMPT, generator=seeded(), **options).frames)


def test_guidance_can_be_turned_on_by_a_callback(art_v, seeded):
    def turn_on(pipe, step, timestep, tensors):
        assert pipe.do_classifier_free_guidance == (pipe.guidance_scale > 1)
        pipe._guidance_scale = 5.0

    options = {"num_frames": 1, "guidance_scale": 1.0, "output_type": "latent"}
    changed = art_v(PROMPT, callback_on_step_end=turn_on, generator=seeded(), **options).frames
    assert not torch.equal(changed, art_v(PROMPT, generator=seeded(), **options).frames)


def test_an_interrupt_ends_the_video_with_the_frame_as_it_is_and_its_state_makes_that_frame_again(art_v, seeded):
    calls = []

    def interrupt(pipe, step, timestep, tensors):
        calls.append(step)
        pipe._interrupt = len(calls) == 4

    options = {"num_frames": 3, "num_inference_steps": 2}
    whole = list(art_v.stream(PROMPT, generator=seeded(), **options))
    part = list(art_v.stream(PROMPT, generator=seeded(), callback_on_step_end=interrupt, **options))
    assert len(part) == 2 and len(calls) == 4
    assert torch.equal(part[0].frames, whole[0].frames) and not torch.equal(part[1].frames, whole[1].frames)
    rest = list(art_v.stream(PROMPT, resume=part[1].state, **options))
    assert [torch.equal(a.frames, b.frames) for a, b in zip(rest, whole[1:], strict=True)] == [True, True]


def test_the_chunk_callback_gets_every_chunk_in_order(art_v, seeded):
    seen = []
    chunks = list(
        art_v.stream(PROMPT, generator=seeded(), callback_on_chunk_end=lambda *arguments: seen.append(arguments))
    )
    assert [(pipe, index) for pipe, index, _ in seen] == [(art_v, 0), (art_v, 1), (art_v, 2)]
    assert all(chunk is made for (_, _, chunk), made in zip(seen, chunks, strict=True))


def test_unknown_callback_tensors_are_refused(art_v):
    with pytest.raises(ValueError, match=r"must be among \['latents', 'prediction'\]; got \['noise'\]"):
        art_v(PROMPT, callback_on_step_end_tensor_inputs=["latents", "noise"])
