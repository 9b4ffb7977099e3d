"""HARIVO in a run folder: streamed windows are chunks of it, joint ones are a single chunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.training_utils import EMAModel
from peft import LoraConfig

import tiny_runs
from longvid import Run, StreamState
from longvid.runs import RunWatcher
from longvid.runs.folder import digest_of
from longvid.runs.pace import Pace
from longvid.video.frames import uint8_frames
from tiny_runs import PROMPT, begin_run, frames_of

LOSSLESS = {"codec": "ffv1"}


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.harivo()


class Stop(Exception):
    pass


class StopAt(RunWatcher):
    def __init__(self, steps):
        self.left = steps

    def on_step(self, pipe, step, timestep, tensors):
        self.left -= 1
        if not self.left:
            raise Stop
        return {}


def called(pipe, num_frames, **options):
    generator = torch.Generator().manual_seed(3)
    frames = pipe(PROMPT, num_frames=num_frames, generator=generator, output_type="pt", **options).frames[0]
    return torch.from_numpy(uint8_frames(frames)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("strategy", "made"), [("streamed", 4), ("joint", 0)])
def test_a_stopped_run_goes_on_to_the_frames_of_the_call(pipe, tmp_path, strategy, made):
    run = begin_run(tmp_path / "run", pipe, num_frames=6, strategy=strategy, num_inference_steps=2, **LOSSLESS)
    with pytest.raises(Stop):
        run.resume(pipe, watcher=StopAt({"streamed": 4, "joint": 2}[strategy]))
    run = Run(run.path)
    assert run.num_made == made and run.manifest.request["strategy"] == strategy
    whole = called(pipe, 6, strategy=strategy, num_inference_steps=2)
    assert torch.equal(frames_of(run.resume(pipe)), whole)
    assert len(run.manifest.chunks) == {"streamed": 2, "joint": 1}[strategy]


def test_a_joint_video_that_is_handed_out_in_parts_is_one_window_and_one_chunk(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, num_frames=9, strategy="joint", num_inference_steps=2, **LOSSLESS)
    pace = Pace()
    assert torch.equal(
        frames_of(run.resume(pipe, watcher=pace)), called(pipe, 9, strategy="joint", num_inference_steps=2)
    )
    (chunk,) = run.manifest.chunks
    assert (chunk.start, chunk.stop, chunk.stop_window) == (0, 9, 1)
    assert (pace.windows, pace.chunks, pace.frames, pace.seconds_left) == (1, 1, 9, 0.0)


def test_a_run_that_is_shorter_than_a_window_or_its_overlap_can_be_made_longer(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, num_frames=1, **LOSSLESS).resume(pipe)
    for num_frames in (5, 8):
        assert torch.equal(frames_of(run.extend(pipe, num_frames=num_frames)), called(pipe, num_frames))


def adapt(pipe):
    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=r"down_blocks.*attentions.*to_q"))


def weaken(pipe):
    pipe.set_adapters("default", 0.3)


def average(pipe):
    EMAModel([2 * parameter.data for parameter in pipe.unet.parameters()]).copy_to(pipe.unet.parameters())


@pytest.mark.parametrize(
    ("before", "change"),
    [([], adapt), ([adapt], weaken), ([adapt], lambda pipe: pipe.disable_lora()),
     ([adapt], lambda pipe: pipe.fuse_lora(components=["unet"])), ([], average)],
    ids=["adapter", "strength", "switched off", "fused", "averaged"],
)  # fmt: skip
def test_a_run_does_not_go_on_unnoticed_when_adapters_or_weights_of_its_pipeline_changed(tmp_path, before, change):
    pipe = tiny_runs.harivo()
    for prepare in before:
        prepare(pipe)
    run = begin_run(tmp_path / "run", pipe, num_frames=6, num_inference_steps=2, **LOSSLESS)
    with pytest.raises(Stop):
        run.resume(pipe, watcher=StopAt(4))
    change(pipe)
    run = Run(run.path)
    assert run.num_made == 4
    with pytest.raises(ValueError, match="because this differs: unet of the model;"):
        run.resume(pipe)
    assert run.resume(pipe, allow_different=True).manifest.mixed == ["unet of the model"]


@pytest.mark.slow
def test_a_chunk_is_made_again_from_the_latents_behind_the_one_before(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, num_frames=8, **LOSSLESS).resume(pipe)
    before = frames_of(run)
    run.reroll(pipe, chunk=1, seed=8)
    assert [not torch.equal(*pair) for pair in zip(before, frames_of(run), strict=True)] == [
        index in (4, 5) for index in range(8)
    ]
    state = StreamState.load(run._folder.state(0, run.manifest.chunks[0]))
    assert {name: tuple(tensor.shape) for name, tensor in state.context.items()} == {"latents": (1, 4, 2, 4, 4)}


def test_a_state_with_other_latents_is_refused(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, num_frames=8, **LOSSLESS).resume(pipe)
    record = run.manifest.chunks[0]
    path = run._folder.state(0, record)
    state = StreamState.load(path)
    for shape in ((1, 4, 3, 4, 4), (1, 4, 2, 8, 8), (1, 4, 2)):
        StreamState(state.next_window, {"latents": torch.zeros(shape)}, state.keys, state.fingerprint).save(path)
        sealed = replace(record, state_bytes=path.stat().st_size, state_sha256=digest_of(path))
        run.manifest.chunks[0] = sealed
        run.manifest.save(run.path)
        with pytest.raises(ValueError, match=r"saved latents must have shape \(1, 4, 2, 4, 4\) for this request; got"):
            Run(run.path).reroll(pipe, chunk=1, seed=8)
    assert Run(run.path).complete
