"""Any diffusers noise scheduler drives ART-V."""

from __future__ import annotations

import diffusers
import pytest
import torch

import tiny
from longvid import DPMPP2SAncestralScheduler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, inside diffusers

SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "LCMScheduler",
    "DPMPP2SAncestralScheduler",
]


def scheduler(name):
    if name == "LMSDiscreteScheduler":
        pytest.importorskip("scipy", reason="diffusers' LMS integrates with scipy")
    known = getattr(diffusers, name, None) or DPMPP2SAncestralScheduler
    options = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler", "LCMScheduler") else {}
    if name == "PNDMScheduler":
        options["skip_prk_steps"] = True
    return known(**tiny.BETAS, **options)


@pytest.fixture(scope="module")
def parts():
    made = tiny.art_v(unet=tiny.anchored_unet(**tiny.ONE_LEVEL), vae=tiny.vae(factor=2)).components
    return {**made, "call_defaults": {"num_inference_steps": 4, "num_frames": 2, "height": 16, "width": 16}}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_makes_a_finite_video_and_leaves_nothing_behind_for_the_next_frame(parts, seeded, name):
    pipe = tiny.art_v(**{**parts, "scheduler": scheduler(name)})
    options = {"output_type": "latent", "guidance_scale": 2.0}
    first = pipe("a red circle", generator=seeded(), **options).frames
    assert first.isfinite().all() and pipe.num_timesteps == len(pipe.scheduler.timesteps) >= 4
    chunks = list(pipe.stream("a red circle", generator=seeded(), **options))
    assert torch.equal(torch.cat([chunk.frames for chunk in chunks], dim=2), first)
    (again,) = pipe.stream("a red circle", resume=chunks[0].state, **options)  # the second frame, alone
    assert torch.equal(again.frames, first[:, :, 1:])


def test_eta_reaches_schedulers_that_take_one(parts, seeded):
    pipe = tiny.art_v(**{**parts, "scheduler": scheduler("DDIMScheduler")})
    videos = [pipe("a", generator=seeded(), output_type="latent", eta=eta).frames for eta in (None, 0.0, 1.0)]
    assert torch.equal(videos[0], videos[1]) and not torch.equal(videos[1], videos[2])


def test_a_scheduler_without_a_noise_table_is_refused(parts):
    pipe = tiny.art_v(**{**parts, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()})
    with pytest.raises(ValueError, match="noise scheduler with alphas_cumprod; got FlowMatchEulerDiscreteScheduler"):
        pipe("a red circle")
