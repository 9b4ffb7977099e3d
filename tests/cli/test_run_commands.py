"""The commands on run folders."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from longvid import Run
from longvid.video.io import read_video

PROMPT = "a red circle moving right"
NAME = "runs/tiger"


def frames(path: str) -> torch.Tensor:
    return read_video(path, as_uint8=True).read()[0].transpose(0, 1)


def chunks() -> list[dict]:
    return json.loads(Path(NAME, "run.json").read_text())["chunks"]


def test_a_run_is_made_stopped_resumed_changed_extended_and_branched(run, model):
    common = ["--model", model, "--seed", 7, "--codec", "ffv1"]
    whole = run("generate", PROMPT, *common, "--num-frames", 6, "--output", "whole.mkv")
    assert whole.code == 0, whole.err

    def stop_after_a_chunk() -> None:
        while not Path(NAME, "video.mkv").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop_after_a_chunk, daemon=True).start()
    words = ["--num-frames", 6, "--run-dir", NAME, "--chunk-frames", 2]
    stopped = run("generate", PROMPT, *common, *words)
    assert stopped.code == 130 and f"of 6 frames are in {NAME}; go on with `longvid resume" in stopped.err
    assert 0 < Run(NAME).num_made < 6

    done = run("resume", NAME)
    assert done.code == 0 and "6 of 6 frames in 3 chunks, 32x32, 8 fps" in done.out and "6/6 frames" in done.err
    assert torch.equal(frames(f"{NAME}/video.mkv"), frames("whole.mkv"))
    again = run("resume", NAME, "--json")
    assert json.loads(again.out)["seed"] == 7 and "loading" not in again.err

    rerolled = run("reroll", NAME, "--chunk", 1, "--seed", 9, "--prompt", "a blue square")
    assert rerolled.code == 0, rerolled.err
    same = [torch.equal(a, b) for a, b in zip(frames(f"{NAME}/video.mkv"), frames("whole.mkv"), strict=True)]
    assert same == [True, True, False, False, True, True]
    assert (chunks()[1]["seed"], chunks()[1]["prompt"]) == (9, "a blue square")

    assert run("extend", NAME, "--num-frames", 7, "--quiet").code == 0
    assert len(frames(f"{NAME}/video.mkv")) == 7
    branched = run("branch", NAME, "--from-chunk", 1, "--run-dir", "runs/other", "--seed", 1)
    assert branched.code == 0 and "2 of 7 frames in 1 chunks" in branched.out
    assert "go on with `longvid resume runs/other`" in branched.out
    assert run("resume", "runs/other", "--quiet").code == 0 and Run("runs/other").complete


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "a", "--run-dir", "r", "--output", "x.mp4"], "expected --run-dir without --output"),
        (["generate", "a", "--run-dir", "r", "--contact-sheet", "x.png"], "expected --run-dir without --contact-sheet"),
        (["generate", "a", "--keep-states", "4"], "--keep-states is for runs in a folder"),
        (["generate", "a", "--run-dir", "r", "--limit", "seem=1"], "did you mean 'seam'?"),
        (["generate", "a", "--run-dir", "r", "--max-rerolls", "1"], "--max-rerolls is for --on-problem reroll"),
        (["generate", "a", "--plain"], "--plain is for runs in a folder"),
        (["generate", "a", "--run-dir", "r", "--events", "no/e.jsonl"], "--events must be a file in a folder that"),
        (["generate", "a", "--run-dir", "r", "--codec", "libvpx"], "codec of a run must be one of"),
        (["resume", "nowhere"], "nowhere is not a run folder: it has no run.json"),
        (["reroll", "nowhere", "--chunk", "0", "--seed", "1"], "nowhere is not a run folder"),
        (["extend", "nowhere", "--num-frames", "9"], "nowhere is not a run folder"),
        (["branch", "nowhere", "--from-chunk", "0", "--run-dir", "r"], "nowhere is not a run folder"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(run, words, message):
    result = run(*words)
    assert result.code == 1 and message in result.err and len(result.err.splitlines()) == 1
    assert not Path("r").exists()


@pytest.mark.parametrize(
    "words", [["resume"], ["resume", "a", "b"], ["reroll", "a", "--chunk", "0"], ["extend", "a"], ["branch", "a"],
              ["reroll", "a", "--chunk", "0", "--seed", "1", "--keep-rest", "--regenerate-rest"]],
)  # fmt: skip
def test_words_that_are_missing_or_too_many_are_wrong_usage(run, words):
    assert run(*words).code == 2


@pytest.mark.slow
def test_a_moved_or_unknown_model_is_named_and_can_be_given(run, model, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(model)
    assert run("generate", PROMPT, "--model", model, "--num-frames", 2, "--run-dir", NAME, "--quiet").code == 0
    made = Run(NAME)
    made.manifest.model["name"] = None
    made.manifest.request["num_frames"] = 3
    made.manifest.chunks = []
    made.manifest.save(made.path)
    assert "does not say where its model is: pass --model" in run("resume", NAME).err
    assert run("resume", NAME, "--model", moved, "--quiet").code == 0
    made = Run(NAME)
    made.manifest.environment["torch"] = "1.0"
    made.manifest.request["num_frames"] = 4
    made.manifest.save(made.path)
    refused = run("resume", NAME, "--model", model)
    assert refused.code == 1 and "torch 1.0 -> " in refused.err and "--allow-different" in refused.err
    allowed = run("resume", NAME, "--model", model, "--allow-different")
    assert allowed.code == 0 and "not made by one model on one machine: torch 1.0 ->" in allowed.out


def test_a_plain_run_prints_a_line_per_chunk_and_a_quiet_one_warnings_only(run, model):
    words = ["--model", model, "--num-frames", 3, "--chunk-frames", 2, "--events", "events.jsonl"]
    words += ["--preview", "--on-problem", "reroll", "--max-rerolls", 1, "--limit", "seam=0", "--limit", "still=0"]
    plain = run("generate", PROMPT, *words, "--run-dir", NAME, "--plain")
    assert plain.code == 0 and "\r" not in plain.err and "%|" not in plain.err
    lines = [line for line in plain.err.splitlines() if " chunks, " in line]
    assert "warning: chunk 1, take 2: the picture jumps" in plain.err and "made again, with seed" in plain.err
    assert Path(NAME, "preview.png").exists()
    assert [line.split(" frames,")[0] for line in lines] == ["1 of 2 chunks, 2 of 3", "2 of 2 chunks, 3 of 3"]
    assert "frames/s" in lines[0] and "left" in lines[0] and "GB host" in lines[0]
    quiet = run("extend", NAME, "--num-frames", 4, "--quiet", "--plain", "--events", "events.jsonl")
    assert (quiet.code, quiet.out) == (0, "")
    assert all(line.startswith("longvid: warning: chunk 1, take ") for line in quiet.err.splitlines())
    told = [json.loads(line)["event"] for line in Path("events.jsonl").read_text().splitlines()]
    assert told.count("end") == 2 and told.count("chunk") == 3 and "reroll" in told
