"""Latents of a whole video on the host: in memory or in mapped files, the video is the same, and no file stays."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

import tiny
from longvid import HARIVOPipeline
from longvid.video import host_memory
from longvid.video.host_memory import MappedMemory

PROMPT = "a red circle moving right"


@pytest.fixture(scope="module")
def enhancer():
    return tiny.enhancer()


@pytest.fixture(scope="module")
def harivo():
    return tiny.harivo()


@pytest.fixture
def mapped(monkeypatch, tmp_path):
    """Tensors that were made in mapped files, whose folder is empty at the end."""
    shapes, empty = [], MappedMemory.empty
    monkeypatch.setattr(host_memory.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(MappedMemory, "empty", lambda self, *given: [empty(self, *given), shapes.append(given[0])][0])
    yield shapes
    assert not list(tmp_path.iterdir())


def clip(num_frames=9, videos=1):
    return torch.rand(videos, 3, num_frames, 8, 8, generator=torch.Generator().manual_seed(0))


def enhanced(pipe, seeded, num_frames=9, **options):
    return pipe(PROMPT, clip(num_frames), generator=seeded(), output_type="pt", **options).frames


def joint(pipe, seeded, num_frames=9, **options):
    options = {"strategy": "joint", "output_type": "pt", "num_inference_steps": 1, **options}
    return pipe(PROMPT, num_frames=num_frames, generator=seeded(), **options).frames


def test_an_enhanced_video_has_the_same_bits_from_memory_and_from_mapped_files(enhancer, seeded, mapped):
    options = {"num_inference_steps": 3, "guidance_scale": 1.0}
    in_memory = enhanced(enhancer, seeded, **options)
    assert not mapped
    assert torch.equal(enhanced(enhancer, seeded, host_memory_limit=0, **options), in_memory)
    assert mapped and {tuple(shape) for shape in mapped} == {(1, 4, 9, 4, 4)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, inside diffusers
def test_noise_of_the_scheduler_and_several_generators_are_the_same_too(seeded, mapped):
    pipe = tiny.enhancer(scheduler=EulerAncestralDiscreteScheduler(**tiny.BETAS))
    made = [
        pipe(
            ["a circle", "a square"], clip(8), generator=[seeded(0), seeded(1)], output_type="latent",
            num_inference_steps=3, host_memory_limit=limit,
        ).frames
        for limit in (0, 2**30)
    ]  # fmt: skip
    assert made[0].isfinite().all() and torch.equal(*made) and mapped


def test_a_limit_is_for_all_tensors_of_the_video_together(enhancer, seeded, mapped):
    size = 5 * 4 * 9 * 4 * 4 * 4
    enhanced(enhancer, seeded, num_inference_steps=1, host_memory_limit=size)
    assert not mapped
    enhanced(enhancer, seeded, num_inference_steps=1, host_memory_limit=size - 1)
    assert mapped


def test_a_joint_video_has_the_same_bits_from_memory_and_from_mapped_files(harivo, seeded, mapped):
    in_memory = joint(harivo, seeded)
    assert not mapped
    assert torch.equal(joint(harivo, seeded, host_memory_limit=0), in_memory)
    assert {tuple(shape) for shape in mapped} == {(1, 4, 9, 4, 4)}  # latents, no pixels
    given = torch.randn(1, 4, 9, 4, 4, generator=seeded(5))
    before = given.clone()
    made = [joint(harivo, seeded, latents=given, output_type="latent", host_memory_limit=limit) for limit in (0, 2**30)]
    assert torch.equal(*made) and torch.equal(given, before)


def test_only_the_joint_strategy_holds_the_whole_video(harivo, seeded, mapped):
    joint(harivo, seeded, strategy="streamed", host_memory_limit=0)
    assert not mapped


def test_a_callback_may_keep_and_replace_latents_that_lie_in_files(enhancer, seeded, mapped):
    def run(limit):
        kept = []

        def note(pipe, step, timestep, given):
            kept.append(given["latents"])
            return {"latents": given["latents"] * 0.5} if step == 1 else {}

        frames = enhanced(enhancer, seeded, callback_on_step_end=note, host_memory_limit=limit)
        return frames, kept

    (frames, kept), (expected, known) = run(0), run(2**30)
    assert torch.equal(frames, expected) and all(torch.equal(*pair) for pair in zip(kept, known, strict=True))
    assert not torch.equal(kept[0], kept[1])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_ctrl_c_leaves_no_file(enhancer, seeded, mapped, error):
    def fail(pipe, step, timestep, given):
        raise error

    with pytest.raises(error):
        enhanced(enhancer, seeded, callback_on_step_end=fail, host_memory_limit=0)
    assert mapped


@pytest.mark.parametrize("limit", [-1, 1.5, "1 GB", True])
def test_a_bad_limit_is_refused_before_any_work(enhancer, harivo, seeded, limit):
    with pytest.raises(ValueError, match="host_memory_limit must be a whole number of bytes, at least 0"):
        enhancer.stream(PROMPT, clip(), host_memory_limit=limit)
    with pytest.raises(ValueError, match="host_memory_limit must be a whole number of bytes, at least 0"):
        harivo.stream(PROMPT, host_memory_limit=limit)
    assert HARIVOPipeline.method_defaults["host_memory_limit"] == 4 * 2**30
