"""Every pipeline takes a guidance schedule where it takes a number."""

from __future__ import annotations

import pytest
import torch

import tiny
from longvid import GuidanceSchedule

PROMPT = "a red circle"
SCHEDULE = {"high": 6.0, "low": 3.0, "until": 0.5}


@pytest.fixture(scope="module")
def pipes(art_v):
    return {"art_v": art_v, "streaming_t2v": tiny.streaming_t2v(), "enhance": tiny.enhancer()}


def made(pipe, scale, **options):
    if "video" in options:
        call = {"num_inference_steps": 3, **options}
    else:
        call = {"num_frames": 1, "num_inference_steps": 2}
    generator = torch.Generator().manual_seed(0)
    return pipe(PROMPT, guidance_scale=scale, generator=generator, output_type="latent", **call).frames


@pytest.mark.parametrize("name", ["art_v", "streaming_t2v", "enhance"])
def test_a_schedule_its_fields_and_a_function_are_one_thing_and_no_single_scale(pipes, name):
    pipe, seen = pipes[name], set()
    options = {"video": torch.full((2, 3, 8, 8), 0.5), "strength": 1.0} if name == "enhance" else {}

    def by_hand(timestep):
        seen.add(scale := 6.0 if timestep >= 500 else 3.0)
        return scale

    by_fields = made(pipe, SCHEDULE, **options)
    assert torch.equal(by_fields, made(pipe, GuidanceSchedule(**SCHEDULE), **options))
    assert torch.equal(by_fields, made(pipe, by_hand, **options)) and seen == {6.0, 3.0}
    assert not torch.equal(by_fields, made(pipe, 6.0, **options))


def test_what_is_no_scale_is_refused(pipes):
    for pipe, options in ((pipes["art_v"], {}), (pipes["enhance"], {"video": torch.zeros(2, 3, 8, 8)})):
        for scale, message in ((-1, "at least 0; got -1"), (True, "got True"), ({"hi": 3}, "a guidance schedule has")):
            with pytest.raises(ValueError, match=message):
                made(pipe, scale, **options)
