"""Steps made for a few frames at a time are steps of the whole video."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

import tiny
from longvid import DPMPP2SAncestralScheduler
from longvid.samplers.frame_steps import FrameSteps

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, inside diffusers

KINDS = [
    DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler,
    DPMSolverMultistepScheduler, DEISMultistepScheduler, UniPCMultistepScheduler,
]  # fmt: skip
SHAPE = (2, 3, 7, 4, 4)


def sampled(scheduler, frames_per_step, seeded, empty=None, shape=SHAPE):
    """Latents behind six steps under a prediction that depends on what the network sees."""
    scheduler.set_timesteps(6)
    return walk(FrameSteps(scheduler, shape[2], frames_per_step, empty), scheduler, seeded, shape)


def walk(steps, scheduler, seeded, shape=SHAPE):
    latents, generator = steps.begin(torch.randn(shape, generator=seeded())), seeded(1)
    drawn = "generator" in inspect.signature(scheduler.step).parameters
    for timestep in scheduler.timesteps:
        prediction = torch.tanh(steps.scaled(latents, timestep)) * 0.7
        options = {"generator": generator} if drawn else {}
        latents = steps.step(prediction, timestep, latents, **options)
    return latents


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_groups_of_frames_give_the_latents_of_the_whole(kind, seeded):
    whole = sampled(kind(**tiny.BETAS), None, seeded)
    for count in (1, 3, 7):
        torch.testing.assert_close(sampled(kind(**tiny.BETAS), count, seeded), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_schedulers_of_groups_share_their_tables_which_no_step_writes_to_and_no_state_repeats(kind, seeded):
    scheduler = kind(**tiny.BETAS)
    scheduler.set_timesteps(6)
    tables = {name: value for name, value in vars(scheduler).items() if getattr(value, "ndim", 0) == 1}
    before = copy.deepcopy(tables)
    steps = FrameSteps(scheduler, SHAPE[2], 3)
    walk(steps, scheduler, seeded)
    assert len(steps.schedulers) == 3 and tables.keys() >= {"betas", "alphas_cumprod", "timesteps"}
    _, remembered = steps.state()
    for name, table in tables.items():
        assert all(getattr(each, name) is table for each in steps.schedulers)
        assert (table == before[name]).all() and not any(name in values for values in remembered)


@pytest.mark.parametrize("kind", [EulerAncestralDiscreteScheduler, DDPMScheduler, DPMPP2SAncestralScheduler])
def test_drawn_noise_is_new_for_every_group(kind, seeded):
    one, again = (sampled(kind(**tiny.BETAS), 3, seeded) for _ in range(2))
    assert torch.equal(one, again)
    flat = sampled(kind(**tiny.BETAS), 3, seeded)[0].transpose(0, 1).flatten(1)
    assert len({tuple(frame.tolist()) for frame in flat}) == SHAPE[2]


def test_a_single_group_is_the_scheduler_itself(seeded):
    scheduler = EulerAncestralDiscreteScheduler(**tiny.BETAS)
    steps = FrameSteps(scheduler, 4, 4)
    assert steps.schedulers == [scheduler] and steps.groups == [slice(0, 4)]


def test_a_scheduler_that_compares_values_sees_the_whole_video():
    scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False, thresholding=True)
    assert FrameSteps(scheduler, 9, 2).groups == [slice(0, 9)]


def test_tensors_of_the_whole_video_come_from_where_they_are_asked_for(seeded):
    given = []

    def empty(shape, dtype):
        given.append(torch.empty(shape, dtype=dtype))
        return given[-1]

    scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False)
    assert sampled(scheduler, 3, seeded, empty) is given[-1]
    assert len(given) == 1 + 6 and {tensor.shape for tensor in given} == {SHAPE}
    clean, noise = torch.ones(SHAPE), torch.randn(SHAPE, generator=seeded())
    steps, timesteps = FrameSteps(scheduler, 7, 2, empty), torch.tensor([500, 500])
    noisy = steps.add_noise(clean, noise, timesteps)
    assert noisy is given[-1] and torch.equal(noisy, scheduler.add_noise(clean, noise, timesteps))
