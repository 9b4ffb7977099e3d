"""One video by the processes of `accelerate launch`: one file, one voice, and the frames of one process."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import tiny
from forked import in_processes
from longvid import VideoWriter
from longvid.cli.main import main
from longvid.video.io import read_video

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are forked here"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore::DeprecationWarning"),
]
PROMPT = "a red circle"


def frames(path):
    return read_video(path, as_uint8=True).read()


def spoken(*commands):
    """(exit code, what was printed) of every command, one after the other in this process."""
    told = []
    for words in commands:
        text = io.StringIO()
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
            code = main([str(word) for word in words])
        told.append((code, text.getvalue()))
    return told


def test_processes_make_the_video_of_one_and_the_main_one_writes_it_and_talks(run, model, tmp_path):
    words = ["generate", PROMPT, "--model", model, "--num-frames", 2, "--codec", "ffv1", "--device", "cpu"]
    (tmp_path / "meeting").mkdir()
    ((main_one, follower),) = zip(
        *in_processes(2, tmp_path / "meeting", partial(spoken, [*words, "--output", "out.mkv"])), strict=True
    )
    assert main_one[0] == 0 and follower == (0, "")
    assert "process 0 of 2, on cpu" in main_one[1] and "out.mkv: 2 frames, 32x32" in main_one[1]
    assert "2/2 frames" in main_one[1]
    assert sorted(path.name for path in Path().iterdir()) == ["meeting", "out.json", "out.mkv"]
    record = json.loads(Path("out.json").read_text())
    assert record["status"] == "complete" and record["device"]["processes"] == 2
    alone = [*words, "options.batched_guidance=false", "--seed", record["seed"], "--output", "alone.mkv"]
    assert run(*alone).code == 0
    assert torch.equal(frames("out.mkv"), frames("alone.mkv"))


def test_what_cannot_be_made_is_said_once_and_fails_everywhere(run, model, tmp_path):
    words = ["generate", PROMPT, "--model", model, "--device", "cpu"]
    commands = [
        [*words, "--output", "video.txt"],
        [*words, "--run-dir", "runs"],
        [*words, "--output", "a.mkv", "--show-masks", "b.png", "--image", "none.png"],
    ]
    (tmp_path / "meeting").mkdir()
    told = in_processes(2, tmp_path / "meeting", partial(spoken, *commands))
    assert told[1] == [(1, "")] * 3
    messages = ["--output: expected a name that ends in", "a run folder is filled by one process; got 2",
                "--image: there is no file"]  # fmt: skip
    for (code, text), message in zip(told[0], messages, strict=True):
        assert code == 1 and message in text and text.count("longvid: error") == 1


def launch(num_processes, *words):
    """What `accelerate launch --multi_gpu` starts: torchrun, here with processes on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}",
               "-m", "longvid.cli.main", *map(str, words)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_launched_enhancement_is_that_of_one_process(run, tmp_path):
    model = tmp_path / "model"
    tiny.enhancer(call_defaults={"num_inference_steps": 2, "chunk_size": 4, "overlap": 2}).save_pretrained(model)
    with VideoWriter("in.mkv", fps=12, codec="ffv1") as writer:
        writer.write(torch.rand(9, 3, 10, 16, generator=torch.Generator().manual_seed(0)))
    words = ["enhance", "in.mkv", "--prompt", PROMPT, "--model", model, "--codec", "ffv1", "--device", "cpu"]
    together = launch(2, *words, "--output", "out.mkv")
    assert together.returncode == 0, together.stderr
    assert together.stderr.count("decoding: 100%") == 1 and "process 0 of 2" in together.stderr
    seed = json.loads(Path("out.json").read_text())["seed"]
    assert run(*words, "--seed", seed, "--output", "alone.mkv").code == 0
    assert torch.equal(frames("out.mkv"), frames("alone.mkv"))
    failed = launch(2, *words, "--output", "out.txt")
    assert failed.returncode != 0 and failed.stderr.count("longvid: error") == 1


def test_processes_share_the_prompts_of_an_evaluation_and_report_what_one_process_does(run, model, tmp_path):
    words = ["evaluate", "--sprites", model, "--num-prompts", 3, "--num-frames", 16, "--batch-size", 1,
             "--long-prompts", 1, "--long-frames", 17, "--device", "cpu"]  # fmt: skip
    (tmp_path / "meeting").mkdir()
    told = in_processes(2, tmp_path / "meeting", partial(spoken, [*words, "--json", "shared.json"]))
    assert told[0][0][0] == 0 and "95 % interval" in told[0][0][1], told
    assert told[1] == [(0, "")]
    assert run(*words, "--json", "alone.json").code == 0
    shared, alone = (json.loads(Path(name).read_text()) for name in ("shared.json", "alone.json"))
    assert len(shared["prompts"]) == 4
    assert shared["prompts"] == alone["prompts"] and shared["figures"] == alone["figures"]


def test_pictures_are_measured_by_one_process_and_what_fails_is_said_once(run, model, tmp_path):
    commands = [
        ["evaluate", "--sprites", model, "--part", "vae"],
        ["evaluate", "--sprites", model, "--num-prompts", 1, "--long-prompts", 1, "--long-frames", 16],
    ]
    (tmp_path / "meeting").mkdir()
    told = in_processes(2, tmp_path / "meeting", partial(spoken, *commands))
    assert "--part vae is measured by one process; got 2" in told[0][0][1]
    assert told[0][1][0] == 1 and told[0][1][1].count("longvid: error") == 1
    assert told[1][1] == (1, "")
