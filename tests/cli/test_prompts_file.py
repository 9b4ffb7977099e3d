"""Many videos from one file of prompts, in one process and in several."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from longvid import Run
from longvid.cli.prompt_lines import plan_runs
from longvid.cli.request import GenerateSettings
from longvid.runs.lock import RunLock
from longvid.video.io import read_video

PROMPTS = ["a red circle moving right", "a blue square spinning", "A green star, bouncing!"]
NAMES = ["0001-a-red-circle-moving-right", "0002-a-blue-square-spinning", "0003-a-green-star-bouncing"]


def write(name: str, *lines: object) -> str:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    Path(name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    return name


def frames(run: Run) -> torch.Tensor:
    return read_video(run.video, as_uint8=True).read()[0]


def stamps(folder: str = "runs") -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_a_file_of_prompts_gives_a_run_for_each_line_and_goes_on_with_what_is_missing(run, model):
    lines = [PROMPTS[0], {"prompt": PROMPTS[1], "seed": 40, "num_frames": 2}, {"prompt": PROMPTS[2]}]
    write("all.jsonl", {"prompt": PROMPTS[0]}, "", *lines[1:])
    words = ["--prompts", "all.jsonl", "--run-dir", "runs", "--model", model, "--seed", 7, "--codec", "ffv1"]
    made = run("generate", *words, "--json")
    assert made.code == 0, made.err
    assert sorted(path.name for path in Path("runs").iterdir()) == NAMES
    assert [json.loads(line)["complete"] for line in made.out.splitlines()] == [True] * 3
    runs = [Run(Path("runs", name)) for name in NAMES]
    assert [(each.manifest.seed, each.num_frames) for each in runs] == [(7, 3), (40, 2), (9, 3)]
    alone = run(
        "generate", PROMPTS[2], "--run-dir", "alone", "--model", model, "--seed", 9, "--codec", "ffv1", "--quiet"
    )
    assert alone.code == 0 and torch.equal(frames(Run("alone")), frames(runs[2]))

    before = stamps()
    again = run("generate", *words)
    assert again.code == 0 and "3 of 3 runs are finished" in again.err and "loading" not in again.err
    assert stamps() == before

    shutil.rmtree(runs[0].path)
    runs[1].manifest.chunks, runs[1].manifest.finished = [], None  # as if it had been stopped before its first chunk
    runs[1].manifest.save(runs[1].path)
    with RunLock(runs[1].path):
        held = run("generate", *words, "--quiet")
    assert held.code == 1 and f"all.jsonl, line 3: runs/{NAMES[1]} is being written by process" in held.err
    assert f"1 runs failed: runs/{NAMES[1]}" in held.err and Run(runs[0].path).complete
    rest = run("generate", *words)
    assert rest.code == 0 and "2 of 3 runs are finished" in rest.err
    assert all(Run(each.path).complete for each in runs)
    assert {name: stamp for name, stamp in stamps().items() if NAMES[2] in name}.items() <= before.items()

    different = run("generate", *words, "--num-frames", 4)
    assert different.code == 1 and f"runs/{NAMES[0]} was begun with another num_frames" in different.err
    Run(runs[2].path).extend(_pipe(model), num_frames=4)
    assert run("generate", *words, "--num-frames", 3).code == 0  # a run that was made longer is still that line's
    write("all.jsonl", {"prompt": PROMPTS[2]})
    other = run("generate", *words)
    assert other.code == 1 and f"runs/{NAMES[0]} was made of another line" in other.err


def _pipe(model):
    from longvid import LongVideoPipeline

    return LongVideoPipeline.from_pretrained(str(model))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a", "sed": 1}, "unknown key 'sed'; did you mean 'seed'?"),
        ({"prompt": "a", "model": "b"}, "unknown key 'model'"),
        ({"prompt": "a", "seed": -1}, "seed must lie in [0, 2^63); got -1"),
        ({"prompt": "a", "seed": "b"}, "seed: Value 'b'"),
        ({"prompt": "a", "num_frames": 0}, "num_frames must be at least 1; got 0"),
        ({"prompt": ["a", 3]}, "prompt must be a text or a list of texts"),
        ({"prompt": ["a", "b"], "num_frames": 1}, "2 prompts need at least 2 frames"),
        ({"prompt": " "}, "expected a prompt"),
        ({"seed": 1}, "expected a prompt"),
        ({"prompt": "a", "image": "none.png"}, "image: there is no file"),
        ({"prompt": "a", "options": 3}, "options must be an object"),
        (
            {"prompt": "a", "options": {"guidance_sale": 3}},
            "no argument 'guidance_sale'; did you mean 'guidance_scale'?",
        ),
        ("[1]", "expected an object such as"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_line_is_named_before_any_work(run, model, line, message):
    write("all.jsonl", {"prompt": "a red circle"}, line)
    result = run("generate", "--prompts", "all.jsonl", "--run-dir", "runs", "--model", model, "--quiet")
    assert result.code == 1 and "all.jsonl, line 2: " in result.err and message in result.err
    assert len(result.err.splitlines()) == 1 and not Path("runs").exists()


def test_a_line_means_itself(tmp_path):
    texts = ["a sign that says ${hello}", "???", "a ${"]
    for name, lines in {
        "all.txt": texts,
        "all.jsonl": [{"prompt": text, "negative_prompt": text} for text in texts],
    }.items():
        planned = plan_runs(Path(write(str(tmp_path / name), *lines)), GenerateSettings(), tmp_path / "runs")
        assert [run.settings.prompt for run in planned] == [[text] for text in texts]
        assert [run.settings.negative_prompt or text for run, text in zip(planned, texts, strict=True)] == texts


def test_events_are_not_written_into_the_video_of_a_line(run, model):
    Path("in.mp4").write_bytes(b"kept")
    write("all.jsonl", {"prompt": "a", "video": "in.mp4"})
    words = ["--prompts", "all.jsonl", "--run-dir", "runs", "--model", model, "--events", "in.mp4"]
    result = run("generate", *words)
    assert result.code == 1 and "--events: 'in.mp4' is the video itself" in result.err
    assert Path("in.mp4").read_bytes() == b"kept" and not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", "two.txt"], "pass --run-dir too"),
        (["--prompts", "two.txt", "--run-dir", "runs", "a"], "got both"),
        (["--prompts", "two.txt", "--run-dir", "runs", "-o", "x.mp4"], "expected --run-dir without --output"),
        (["--prompts", "two.csv", "--run-dir", "runs"], "expected a .txt or .jsonl file"),
        (["--prompts", "none.txt", "--run-dir", "runs"], "there is no file none.txt"),
        (["--prompts", "empty.txt", "--run-dir", "runs"], "empty.txt has no lines"),
        (["a", "--run-dir", "runs", "--allow-different"], "--allow-different is for --prompts"),
    ],
)
def test_wrong_use_of_a_prompts_file_is_one_line(run, words, message):
    write("two.txt", "a", "b")
    write("empty.txt", "", " ")
    result = run("generate", *words)
    assert result.code == 1 and message in result.err and len(result.err.splitlines()) == 1
    assert not Path("runs").exists()


def launch(model: Path, num_processes: int, *words: str) -> subprocess.Popen:
    """What `accelerate launch --multi_gpu` starts: torchrun, here with processes on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}",
               "-m", "longvid.cli.main", "generate", "--model", str(model),
               "--seed", "7", "--codec", "ffv1", "--device", "cpu", *words]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def holders(folder: str) -> list[int]:
    """Processes that write runs which are not finished."""
    found = []
    for lock in Path(folder).glob("*/lock"):
        words = lock.read_text().split()
        if len(words) > 1 and (lock.parent / "video.mkv").exists() and not Run(lock.parent).complete:
            found.append(int(words[1]))
    return found


def kill_one(launcher: subprocess.Popen, folder: str) -> None:
    while not (found := holders(folder)):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.005)
    os.kill(found[0], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_the_lines_and_go_on_after_one_was_killed(run, model, num_processes):
    texts = [f"{text} {number}" for number in range(2) for text in PROMPTS][:5]
    words = ["--prompts", write("all.txt", *texts), "--num-frames", "12", "--chunk-frames", "2"]
    alone = launch(model, 1, *words, "--run-dir", "alone")
    stopped = launch(model, num_processes, *words, "--run-dir", "runs")
    kill_one(stopped, "runs")
    stopped.communicate()
    assert stopped.returncode != 0 and not all(Run(path).complete for path in Path("runs").iterdir())
    _, errors = alone.communicate()
    assert alone.returncode == 0, errors

    again = launch(model, num_processes, *words, "--run-dir", "runs")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert len({(path / "lock").read_text() for path in Path("runs").iterdir()}) >= num_processes
    names = [sorted(path.name for path in Path(folder).iterdir()) for folder in ("alone", "runs")]
    assert len(names[0]) == 5 and names[0] == names[1]
    for name in names[0]:
        made = Run(Path("runs", name))
        assert made.complete and not made.manifest.mixed
        assert torch.equal(frames(made), frames(Run(Path("alone", name))))
