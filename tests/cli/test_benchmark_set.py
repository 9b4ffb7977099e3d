"""`longvid benchmark-set`: videos of every prompt, made once, measured once, and resumed where they were stopped."""

import json
import shutil
from pathlib import Path

import pytest

PROMPTS = ("a red circle", "a blue square moving left")
METRICS = ("--metrics", "flicker,clip_score")


@pytest.fixture
def command(run, model, tmp_path):
    """Run the command on two prompts with a tiny model at two frames."""
    (tmp_path / "mine.txt").write_text("\n".join(PROMPTS) + "\n")

    def call(*words, output="out", frames=2):
        rest = ("--model", model, "--output", output, "--num-frames", frames, "--device", "cpu")
        return run("benchmark-set", "mine.txt", *rest, *words)

    return call


def times(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.png")}


def test_every_prompt_gets_a_video_a_record_and_a_row_of_the_table(command):
    result = command(*METRICS, "--quiet")
    assert result.code == 0, result.err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "001-a-red-circle", "001-a-red-circle.json", "002-a-blue-square-moving-left",
        "002-a-blue-square-moving-left.json", "benchmark.json", "report.json",
    ]  # fmt: skip
    report = json.loads(Path("out/report.json").read_text())
    assert [video["prompt"] for video in report["videos"]] == list(PROMPTS)
    assert [video["seed"] for video in report["videos"]] == [0, 1]
    assert {video["frames"] for video in report["videos"]} == {2}
    row = report["metrics"]["clip_score"]
    scores = [video["scores"]["clip_score"]["value"] for video in report["videos"]]
    assert row["value"] == pytest.approx(sum(scores) / 2) and row["videos"] == 2
    assert row["interval"] == pytest.approx(1.96 * abs(scores[0] - scores[1]) / 2)
    assert "clip_score" in result.out and "flicker" in result.out


def test_a_second_run_makes_and_measures_nothing_and_more_can_be_asked_for(command, monkeypatch):
    assert command("--metrics", "none", "--quiet").code == 0
    made = times("out")
    assert command(*METRICS, "--quiet").code == 0
    from longvid.metrics import evaluate

    def never(*_, **__):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate_video", never)
        assert command(*METRICS, "--quiet").code == 0
    assert times("out") == made
    result = command(*METRICS, "--videos-per-prompt", 2, "--quiet")
    assert result.code == 0, result.err
    assert made.items() <= times("out").items() and len(times("out")) == 2 * len(made)
    seeds = [video["seed"] for video in json.loads(Path("out/report.json").read_text())["videos"]]
    assert seeds == [0, 1, 2, 3]


def test_a_run_that_was_cut_off_goes_on_and_gives_the_same_frames(command):
    assert command("--metrics", "none", "--quiet", output="whole").code == 0
    shutil.copytree("whole", "cut")
    Path("cut/002-a-blue-square-moving-left.json").unlink()  # as if the process had been killed before the record
    Path("cut/.partial-002-a-blue-square-moving-left").mkdir()
    first = times("cut/001-a-red-circle")
    result = command("--metrics", "none", output="cut")
    assert result.code == 0 and "1 of 2 videos are there" in result.err
    assert times("cut/001-a-red-circle") == first
    assert not list(Path("cut").glob(".partial*"))
    for path in Path("whole").rglob("*.png"):
        assert path.read_bytes() == Path("cut", path.relative_to("whole")).read_bytes()


def test_other_settings_in_the_same_folder_are_an_error_that_names_them(command):
    assert command("--metrics", "none", "--quiet").code == 0
    result = command("--metrics", "none", frames=3)
    assert result.code == 1 and "settings.num_frames=2, and 3 is asked for" in result.err
    Path("mine.txt").write_text("a green star\n")
    assert "set.prompts" in command("--metrics", "none").err
    Path("other").mkdir()
    Path("other/file").touch()
    assert "holds other files" in command("--metrics", "none", output="other").err


def test_what_is_missing_or_misspelt_is_found_before_any_video_is_made(command, run):
    for words, message in (
        (("--metrics", "lpips"), "alexnet-owt-7be5be79.pth"),
        (("--metrics", "flikker"), "did you mean 'flicker'"),
        (("--metrics", "flicker", "lpips.backbone=x.pth"), "not asked for: lpips"),
        (("--metrics", "fvd", "fvd.features=i3d:no.pt"), "fvd.reference=PATH"),
        (("--metrics", "none", "image=x.png"), "image cannot be set"),
        (("--metrics", "none", "numframes=3"), "unknown option 'numframes'"),
    ):
        result = command(*words)
        assert result.code == 1 and message in result.err, (words, result.err)
    assert not Path("out").exists()
    assert "expected one SET" in command("another.txt").err
    assert "did you mean 'harivo'" in run("benchmark-set", "harvio", "--output", "x").err
    assert "benchmark-set" in run("--help").out


@pytest.mark.slow
def test_a_metric_of_the_whole_set_sees_every_video(command, tmp_path):
    import torch

    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            share = x.mean(dim=(1, 2, 3, 4)) / 255
            return torch.stack([share, 1 - share], dim=1)

    torch.jit.script(Half()).save(str(tmp_path / "c3d.pt"))
    result = command("--metrics", "is", f"is.classifier=c3d:{tmp_path / 'c3d.pt'}", "--quiet", frames=16)
    assert result.code == 0, result.err
    row = json.loads(Path("out/report.json").read_text())["metrics"]["is"]
    assert row["details"]["clips"] == 2 and 1 <= row["value"] <= 2


@pytest.mark.slow
def test_the_bundled_model_makes_a_benchmark_with_every_metric_that_needs_no_weights(run, tmp_path):
    (tmp_path / "mine.txt").write_text("a red circle moving right on a blue background\n")
    result = run("benchmark-set", "mine.txt", "--model", "longvid/art-v-tiny", "--output", "out", "--num-frames", 4)
    assert result.code == 0, result.err
    rows = json.loads(Path("out/report.json").read_text())["metrics"]
    assert {"mawe", "scuts", "clip_score", "clip_consistency", "flicker"} <= rows.keys()
    assert "not measured: lpips" in result.out
