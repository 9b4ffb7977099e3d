"""Steps of HARIVO's joint windows that are kept in a file."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image

import tiny
from longvid.pipelines.window_strategies import Joint

PROMPT = "a red circle"
JOINT = {"num_frames": 9, "strategy": "joint", "num_inference_steps": 4, "output_type": "pt"}


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def pipe():
    built = tiny.harivo(
        scheduler=DPMSolverMultistepScheduler(**tiny.BETAS),
        controlnet=tiny.control_network(tiny.unet(**tiny.SMALL_UNET)),
    )
    built.set_progress_bar_config(disable=True)
    return built


def sketch(shade=200):
    return {0: Image.new("RGB", (32, 32), (shade, 0, 0)), -1: torch.full((3, 32, 32), 0.5)}


def made(pipe, seeded, path=None, *, stop=None, seen=None, **options):
    """A video, its numbers of steps in `seen`; `stop` ends it in a step."""

    def note(pipe, step, timestep, given):
        if step == stop:
            raise Stop
        if seen is not None:
            seen.append(step)
        return {}

    options = {"generator": seeded(), "control": sketch(), **JOINT, **options}
    return pipe(PROMPT, checkpoint=path, callback_on_step_end=note, **options).frames


def stopped(pipe, seeded, path, stop=2, **options):
    with pytest.raises(Stop):
        made(pipe, seeded, path, stop=stop, **options)
    assert path.exists()


@pytest.mark.parametrize("limit", [0, 2**30], ids=["mapped", "memory"])
def test_the_same_call_goes_on_behind_the_last_step_with_the_same_bits(pipe, seeded, tmp_path, limit):
    path, seen = tmp_path / "steps", []
    whole = made(pipe, seeded)
    stopped(pipe, seeded, path, stop=1, host_memory_limit=limit)
    stopped(pipe, seeded, path, stop=2)
    assert torch.equal(made(pipe, seeded, str(path), seen=seen, host_memory_limit=limit), whole)
    assert seen == [2, 3] and not list(tmp_path.iterdir())


def test_a_call_for_another_video_is_refused_and_the_file_stays(pipe, seeded, tmp_path):
    path = tmp_path / "steps"
    stopped(pipe, seeded, path)
    before = path.read_bytes()
    changes = {
        "control": {"control": sketch(199)},
        "mg_scale": {"mg_scale": 3.0},
        "noise": {"generator": seeded(9)},
        "strategy": {"strategy": Joint(mg_scope="video")},
    }
    for name, change in changes.items():
        with pytest.raises(ValueError, match=f"would not go on bit for bit; different: .*{name}"):
            made(pipe, seeded, path, **change)
    assert path.read_bytes() == before


def test_a_consumer_that_leaves_early_keeps_the_steps_and_one_that_takes_all_does_not(pipe, seeded, tmp_path):
    path, seen = tmp_path / "steps", []
    options = {"generator": seeded(), **JOINT, "checkpoint": path}
    next(iter(pipe.stream(PROMPT, **options)))
    assert path.exists()
    options |= {"generator": seeded(), "callback_on_step_end": lambda *given: seen.append(given[1]) or {}}
    chunks = list(pipe.stream(PROMPT, **options))
    assert [chunk.start for chunk in chunks] == [0, 6] and not seen and not path.exists()


def test_the_file_holds_the_latents_and_what_the_sampler_remembers_and_no_tables(pipe, seeded, tmp_path):
    path = tmp_path / "steps"
    stopped(pipe, seeded, path)
    latents = 4 * 9 * 4 * 4 * 4
    assert path.stat().st_size < 3 * latents + 2**15  # two estimates of DPM-Solver++, random state, names


def test_a_sampler_that_no_file_can_hold_is_warned_of_and_the_video_is_made(seeded, tmp_path):
    class Odd(DPMSolverMultistepScheduler):
        def step(self, *args, **options):
            self.memory = {1, 2}
            return super().step(*args, **options)

    pipe = tiny.harivo(scheduler=Odd(**tiny.BETAS))
    pipe.set_progress_bar_config(disable=True)
    whole = made(pipe, seeded, control=None)
    with pytest.warns(UserWarning, match="cannot keep the steps made so far in .*holds a set"):
        assert torch.equal(made(pipe, seeded, tmp_path / "steps", control=None), whole)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "streamed"},
            "checkpoint keeps the steps of a whole video, strategy='joint'; got streamed windows",
        ),
        ({"generator": None}, "checkpoint needs a generator with a seed"),
        ({"checkpoint": "nowhere/steps"}, "checkpoint must be a file in a folder that exists; got 'nowhere/steps'"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_the_call(pipe, seeded, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream(PROMPT, **{"generator": seeded(), "checkpoint": tmp_path / "steps", **JOINT, **options})
