"""HARIVO in a run folder: streamed windows are chunks of it, joint ones are a single chunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.training_utils import EMAModel
from peft import LoraConfig

import tiny_runs
from longvid import Run, StreamState
from longvid.runs import RunWatcher, Watchers
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


JOINT = {"num_frames": 9, "strategy": "joint", "num_inference_steps": 3}


class Count(RunWatcher):
    def __init__(self):
        self.steps = []

    def on_step(self, pipe, step, timestep, tensors):
        self.steps.append(step)
        return {}


def stopped(pipe, folder, at=2):
    """A joint run that was stopped in a step, with its file of the steps before."""
    run = begin_run(folder, pipe, **JOINT, **LOSSLESS)
    with pytest.raises(Stop):
        run.resume(pipe, watcher=StopAt(at))
    (steps,) = (folder / "states").iterdir()
    assert steps.name == "000000-1.steps" and run.has_steps
    return Run(folder), steps


def test_a_joint_run_goes_on_at_the_step_where_it_was_stopped(pipe, tmp_path):
    run, steps = stopped(pipe, tmp_path / "run")
    count, pace = Count(), Pace()
    assert torch.equal(frames_of(run.resume(pipe, watcher=Watchers(count, pace))), called(pipe, **JOINT))
    assert count.steps == [1, 2] and pace.steps == 2 and not steps.exists() and not run.has_steps
    assert [path.name for path in (run.path / "states").iterdir()] == ["000000-1.safetensors"]


def test_steps_are_not_made_again_for_frames_that_could_not_be_written(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, **JOINT, **LOSSLESS)

    class Full(RunWatcher):
        def on_window(self, window):
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        run.resume(pipe, watcher=Full())
    count = Count()
    assert torch.equal(frames_of(Run(run.path).resume(pipe, watcher=count)), called(pipe, **JOINT))
    assert count.steps == []


def test_steps_of_another_model_lie_apart_and_are_gone_on_with_under_that_model(tmp_path):
    pipe = tiny_runs.harivo()
    run, steps = stopped(pipe, tmp_path / "run", at=3)
    average(pipe)
    with pytest.raises(ValueError, match="allow_different"):
        run.resume(pipe)
    with pytest.raises(Stop):
        run.resume(pipe, allow_different=True, watcher=StopAt(2))
    assert len(list((run.path / "states").iterdir())) == 2 and steps.exists()
    count = Count()
    run = Run(run.path).resume(pipe, allow_different=True, watcher=count)
    assert count.steps == [1, 2] and torch.equal(frames_of(run), called(pipe, **JOINT))
    assert [path.name for path in (run.path / "states").iterdir()] == ["000000-1.safetensors"]


@pytest.mark.parametrize("damage", ["bit", "cut", "done", "pickle"])
def test_damaged_steps_are_refused_and_say_which_file_to_delete(pipe, tmp_path, damage):
    run, steps = stopped(pipe, tmp_path / "run")
    data = bytearray(steps.read_bytes())
    if damage == "bit":
        data[-100] ^= 1
    elif damage == "cut":
        del data[-1:]
    elif damage == "done":
        assert data.count(b'"done": "1"') == 1
        data = data.replace(b'"done": "1"', b'"done": "9"')
    else:
        data = bytearray(b"\x80\x04N.")
    steps.write_bytes(data)
    with pytest.raises(ValueError, match=r"000000-1\.steps is damaged.*delete it"):
        run.resume(pipe)
    assert steps.read_bytes() == data
    steps.unlink()
    assert torch.equal(frames_of(run.resume(pipe)), called(pipe, **JOINT))


def test_steps_that_are_a_link_are_not_followed(pipe, tmp_path):
    run, steps = stopped(pipe, tmp_path / "run")
    steps.rename(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    steps.symlink_to(tmp_path / "elsewhere")
    count = Count()
    assert torch.equal(frames_of(run.resume(pipe, watcher=count)), called(pipe, **JOINT))
    assert count.steps == [0, 1, 2] and (tmp_path / "elsewhere").read_bytes() == before


def test_a_run_keeps_the_steps_in_its_own_folder(pipe, tmp_path):
    with pytest.raises(ValueError, match="a run keeps the steps in its own folder; got checkpoint"):
        begin_run(tmp_path / "run", pipe, **JOINT, checkpoint=str(tmp_path / "steps"))


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
