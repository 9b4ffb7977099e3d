"""Steps of the enhancer that are kept in a file: whatever ends the process, the same call goes on to the same bits."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from safetensors import safe_open

import tiny
from tiny_runs import Reaper, in_child

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, inside diffusers

PROMPT = "a red circle moving right"
OTHERS = [
    EulerAncestralDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
    HeunDiscreteScheduler,
]


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def pipe():
    return tiny.enhancer(scheduler=EulerAncestralDiscreteScheduler(**tiny.BETAS))


def clip(num_frames=9, seed=0):
    return torch.rand(num_frames, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def enhanced(pipe, seeded, checkpoint=None, *, stop=None, video=None, **options):
    def note(pipe, step, timestep, given):
        if step == stop:
            raise Stop

    options = {"prompt": PROMPT, "generator": seeded(), "output_type": "pt", **options}
    return pipe(
        video=clip() if video is None else video, checkpoint=checkpoint, callback_on_step_end=note, **options
    ).frames


def stopped(pipe, seeded, path, stop=2, **options):
    with pytest.raises(Stop):
        enhanced(pipe, seeded, path, stop=stop, **options)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["done"] == str(stop)


@pytest.mark.parametrize("limit", [0, pytest.param(2**30, marks=pytest.mark.slow)], ids=["mapped", "memory"])
@pytest.mark.parametrize(
    "kind", [DPMSolverMultistepScheduler, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)]
)
def test_a_call_that_was_stopped_goes_on_to_the_same_bits_and_deletes_its_file(seeded, tmp_path, kind, limit):
    betas = {**tiny.BETAS, **({"skip_prk_steps": True} if kind is PNDMScheduler else {})}
    pipe, path = tiny.enhancer(scheduler=kind(**betas)), tmp_path / "steps"
    options = {"num_inference_steps": 6, "guidance_scale": 1.0, "host_memory_limit": limit}
    whole = enhanced(pipe, seeded, **options)
    stopped(pipe, seeded, path, stop=1, **options)
    stopped(pipe, seeded, path, stop=2, **options)
    pipe.scheduler = kind(**betas)
    assert torch.equal(enhanced(pipe, seeded, path, **options), whole)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_batch_with_a_generator_each_goes_on_too(pipe, seeded, tmp_path):
    options = {"prompt": ["a red circle", "a blue square"], "num_inference_steps": 5, "guidance_scale": 1.0}
    whole = enhanced(pipe, seeded, generator=[seeded(0), seeded(1)], **options)
    stopped(pipe, seeded, tmp_path / "steps", generator=[seeded(0), seeded(1)], **options)
    made = enhanced(pipe, seeded, tmp_path / "steps", generator=[seeded(0), seeded(1)], **options)
    assert torch.equal(made, whole)


def test_behind_the_last_step_only_frames_are_decoded(pipe, seeded, tmp_path):
    def fail(pipe, index, chunk):
        raise Stop

    path = tmp_path / "steps"
    options = {"num_inference_steps": 3, "guidance_scale": 1.0}
    whole = enhanced(pipe, seeded, **options)
    with pytest.raises(Stop):
        enhanced(pipe, seeded, path, callback_on_chunk_end=fail, **options)
    made = enhanced(pipe, seeded, path, stop=1, **options)  # no step is made: none can stop
    assert torch.equal(made, whole)


def test_a_file_that_was_kept_for_something_else_is_refused_and_stays(pipe, seeded, tmp_path):
    path, options = tmp_path / "steps", {"num_inference_steps": 5, "guidance_scale": 1.0}
    stopped(pipe, seeded, path, **options)
    before = path.read_bytes()
    changes = {
        "prompt": {"prompt": "a blue square"},
        "num_inference_steps": {"num_inference_steps": 6},
        "video": {"video": clip(seed=1)},
        "seed": {"generator": torch.Generator().manual_seed(7)},
        "scheduler": {},
    }
    for name, change in changes.items():
        if name == "scheduler":
            pipe.register_modules(scheduler=EulerAncestralDiscreteScheduler(**tiny.BETAS, steps_offset=1))
        with pytest.raises(ValueError, match=f"would not go on bit for bit; different: .*{name}"):
            enhanced(pipe, seeded, path, **{**options, **change})
    pipe.register_modules(scheduler=EulerAncestralDiscreteScheduler(**tiny.BETAS))
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused(pipe, seeded, tmp_path):
    path, options = tmp_path / "steps", {"num_inference_steps": 5, "guidance_scale": 1.0}
    stopped(pipe, seeded, path, **options)
    data = path.read_bytes()
    for wrong in (b"", data[:100], data[:-1], b"\x80\x04" + data):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="is damaged, or no checkpoint"):
            enhanced(pipe, seeded, path, **options)


def test_bad_names_and_calls_without_a_seed_are_refused_before_any_work(pipe, seeded, tmp_path):
    for name in (tmp_path, tmp_path / "nowhere" / "steps"):
        with pytest.raises(ValueError, match="checkpoint must be a file in a folder that exists"):
            pipe.stream(PROMPT, clip(), checkpoint=name, generator=seeded())
    with pytest.raises(ValueError, match="checkpoint needs a generator with a seed"):
        pipe.stream(PROMPT, clip(), checkpoint=tmp_path / "steps")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("points", [(8,), pytest.param(range(1, 60), marks=pytest.mark.slow)], ids=["one", "every"])
def test_a_process_killed_at_a_sync_rename_or_half_write_is_followed_by_one_with_the_same_bits(
    pipe, seeded, tmp_path, points
):
    path, options = tmp_path / "steps", {"num_inference_steps": 5, "guidance_scale": 1.0}
    whole, kills = enhanced(pipe, seeded, **options), 0
    pipe.known_fingerprint()
    for point in points:
        code = in_child(lambda: enhanced(pipe, seeded, path, **options), before=Reaper(point).install)
        kills += code == -signal.SIGKILL
        assert torch.equal(enhanced(pipe, seeded, path, **options), whole)
        assert not path.exists()
    assert kills >= min(20, len(points))
