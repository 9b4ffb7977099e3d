from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny
from longvid import Run, VideoWriter
from longvid.cli.evaluate_videos import parse_borders, parse_size
from longvid.cli.evaluated import find_evaluated
from longvid.metrics.flicker import Flicker
from metrics_videos import translated


@pytest.fixture
def videos(tmp_path) -> list[Path]:
    """Two folders of frames."""
    paths = [tmp_path / "first", tmp_path / "second"]
    for seed, path in enumerate(paths):
        with VideoWriter(path) as writer:
            writer.write(translated(10, seed=seed).transpose(0, 1)[None])
    return paths


def test_videos_are_compared_in_one_command(run, videos):
    metrics = ("--metrics", "seams,flicker", "--borders", "4:4")
    result = run("evaluate", *videos, *metrics, "--json", "report.json", "--html", "report.html", "--quiet")
    assert result.code == 0, result.err
    values = json.loads(Path("report.json").read_text())
    assert [video["read"]["path"] for video in values["videos"]] == [str(path) for path in videos]
    assert values["videos"][0]["borders"] == [4, 8] and values["command"].startswith("longvid evaluate")
    assert "first" in result.out and "second" in result.out and "seams" in result.out
    assert Path("report.html").read_text().startswith("<!doctype html>")


def test_the_flow_and_its_size_can_be_chosen(run, videos):
    pytest.importorskip("cv2")
    result = run("evaluate", videos[0], "--flow", "dis", "--flow-size", "own", "--metrics", "mawe,loops", "--quiet")
    assert result.code == 0 and "mawe" in result.out and "lossless" in result.out


def test_what_is_wrong_is_found_before_the_first_frame(run, videos):
    assert "did you mean 'flicker'" in run("evaluate", videos[0], "--metrics", "flickr").err
    assert "there is no video" in run("evaluate", "nowhere.mp4").err
    assert "--html: cannot write" in run("evaluate", videos[0], "--html", "no/page.html").err
    assert "--borders: expected frames" in run("evaluate", videos[0], "--borders", "0,4").err
    assert "--flow-size: expected" in run("evaluate", videos[0], "--flow-size", "720").err
    assert "'raft' or 'dis'" in run("evaluate", videos[0], "--flow", "lk").err


def test_videos_and_the_built_in_world_are_two_kinds_of_evaluation(run, videos):
    assert "expected videos, or --sprites" in run("evaluate").err
    assert "got both" in run("evaluate", videos[0], "--sprites", "some/model").err
    assert "--part goes with --sprites only" in run("evaluate", videos[0], "--part", "vae").err
    assert "--metrics goes with videos only" in run("evaluate", "--sprites", "--metrics", "mawe").err


def test_borders_and_sizes_are_read_in_their_spellings():
    assert list(parse_borders("16:8")(40)) == [16, 24, 32] and parse_borders("3,9")(5) == [3, 9]
    assert parse_borders(None) is None
    assert parse_size("own") is None and parse_size("480x640") == (480, 640)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory, art_v) -> Path:
    """A finished run of 6 frames in chunks of 2, its video in H.264."""
    path = tmp_path_factory.mktemp("runs") / "circle"
    size = {"height": 32, "width": 32, "num_inference_steps": 1}
    art_v.generate_to(path, "a red circle", num_frames=6, chunk_frames=2, **size)
    return path


def test_a_run_folder_knows_its_borders_and_is_read_without_loss(run, a_run):
    result = run("evaluate", a_run, "--metrics", "seams,flicker", "--json", "report.json", "--quiet")
    assert result.code == 0, result.err
    video = json.loads(Path("report.json").read_text())["videos"][0]
    assert video["borders"] == [2, 4] and video["read"]["lossless"] is True and video["read"]["num_frames"] == 6
    assert video["read"]["in_words"].startswith("3 files, ffv1, bgr0, lossless: ")
    assert video["read"]["path"] == str(a_run) and result.out.startswith("circle: 6 frames, 32 x 32")
    flicker = Flicker()
    flicker.update(torch.stack(list(Run(a_run).read())))
    assert video["results"]["flicker"]["value"] == pytest.approx(flicker.compute().value, rel=1e-6)


def test_a_run_that_keeps_the_video_alone_is_read_from_it(run, art_v, tmp_path):
    size = {"height": 32, "width": 32, "num_inference_steps": 1}
    art_v.generate_to(tmp_path / "lean", "a red circle", num_frames=4, keep_frames=False, **size)
    result = run("evaluate", tmp_path / "lean", "--metrics", "flicker", "--quiet")
    assert result.out.startswith("lean: 4 frames, 32 x 32 at 8 fps, file, h264, yuv420p, lossy: ")


def test_a_run_knows_its_prompt_unless_another_is_given(a_run):
    assert find_evaluated([str(a_run)], prompt=None, borders=None)[0].prompt == "a red circle"
    assert find_evaluated([str(a_run)], prompt="a star", borders=None)[0].prompt == "a star"
    assert find_evaluated([str(a_run)] * 2, prompt=None, borders=parse_borders("3"))[0].borders == [3]


@pytest.mark.parametrize(
    ("prompts", "prompt"), [([["a red circle", "a star"]], None), ([["a red circle", "a red circle"]], "a red circle")]
)
def test_a_run_of_several_prompts_has_one_if_they_are_the_same(tmp_path, art_v, prompts, prompt):
    size = {"height": 32, "width": 32, "num_inference_steps": 1}
    art_v.generate_to(tmp_path / "story", prompts, frames_per_prompt=1, **size)
    assert find_evaluated([str(tmp_path / "story")], prompt=None, borders=None)[0].prompt == prompt


def test_two_videos_of_one_name_have_a_record_each_and_are_known_by_it(run, model):
    for prompt, output in (("a star", "made.mkv"), ("a circle", "made.gif"), ("a cross", "made/")):
        result = run("generate", prompt, "--model", model, "--num-frames", 1, "--output", output, "--quiet")
        assert result.code == 0, result.err
    found = {each.path.name: each.prompt for each in find_evaluated(["."], prompt=None, borders=None)}
    assert found == {"made.mkv": "a star", "made.gif": "a circle"}
    assert find_evaluated(["made"], prompt=None, borders=None)[0].prompt == "a cross"
    assert sorted(path.name for path in Path().glob("*.json")) == ["made.gif.json", "made.json", "made.png.json"]


@pytest.mark.parametrize("output", ["made.mkv", "made"])
def test_a_video_is_known_by_the_record_beside_it(run, model, output):
    options = ("--num-frames", 3, "--num-inference-steps", 1, "--quiet")
    result = run("generate", "a red circle", "--model", model, "--output", output, *options)
    assert result.code == 0, result.err
    (found,) = find_evaluated([output], prompt=None, borders=None)
    assert (found.prompt, found.borders) == ("a red circle", None)  # single frames have no seams
    assert find_evaluated([output], prompt="a star", borders=None)[0].prompt == "a star"
    Path(output).rename(Path(output).with_stem("other"))
    Path("made.json").rename("other.json")
    assert find_evaluated([str(Path(output).with_stem("other"))], prompt=None, borders=None)[0].prompt is None


def test_a_record_knows_the_borders_of_chunks_also_of_a_last_one_of_a_single_frame(run, tmp_path):
    defaults = {"num_inference_steps": 1, "height": 32, "width": 32}
    tiny.streaming_t2v(chunk_size=6, overlap=2, call_defaults=defaults).save_pretrained(tmp_path / "chunks")
    result = run("generate", "a red circle", "--model", "chunks", "--num-frames", 11, "--output", "made.mkv", "--quiet")
    assert result.code == 0, result.err
    assert find_evaluated(["made.mkv"], prompt=None, borders=None)[0].borders == [6, 10]


def test_a_record_tells_of_its_own_video_alone(videos, tmp_path):
    video, record = videos[0], tmp_path / "first.json"
    told = {"prompts": ["a star"] * 2, "output": {"path": "elsewhere/first", "borders": [4, 8]}}
    for values, expected in (
        (told, ("a star", [4, 8])),
        (told | {"prompts": ["a star", "a circle"]}, (None, [4, 8])),
        (told | {"output": {"path": "second"}}, (None, None)),
        (told | {"output": {"path": "first", "borders": "none"}}, (None, None)),
        ({"prompt": "a star"}, (None, None)),
        (["a star"], (None, None)),
    ):
        record.write_text(json.dumps(values))
        (found,) = find_evaluated([str(video)], prompt=None, borders=None)
        assert (found.prompt, found.borders) == expected
