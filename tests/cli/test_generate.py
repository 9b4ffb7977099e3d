from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from longvid import ARTVPipeline, LongVideoPipeline
from longvid.video.io import read_video

PROMPT = "a red circle moving right"


def record(path: str = "demo.json") -> dict:
    return json.loads(Path(path).read_text())


def frames(path: str) -> torch.Tensor:
    return read_video(path, as_uint8=True).read()


def test_a_prompt_becomes_a_video_of_exactly_the_frames_asked_for_with_its_record(run, model):
    result = run("generate", PROMPT, "--model", model, "--num-frames", 5, "--seed", 7, "--output", "demo.mp4")
    assert result.code == 0, result.err
    assert frames("demo.mp4").shape == (1, 3, 5, 32, 32)
    made = record()
    assert made["status"] == "complete" and made["error"] is None
    assert made["prompts"] == [PROMPT] and made["seed"] == 7
    assert made["output"] | {"bytes": 0} == {
        "path": "demo.mp4", "frames": 5, "fps": 8, "width": 32, "height": 32, "codec": "h264",
        "pixel_format": "yuv420p", "bytes": 0, "borders": [],
    }  # fmt: skip
    assert "demo.mp4: 5 frames, 32x32, 8 fps, h264 yuv420p" in result.out and "5/5 frames" in result.err


def test_the_record_names_everything_that_made_the_video(run, model):
    run("generate", PROMPT, "--model", model, "--num-frames", 2, "--output", "demo.mp4", "--quiet")
    made, pipe = record(), ARTVPipeline.from_pretrained(model)
    assert made["model"] == {"name": str(model), "class": "ARTVPipeline", "fingerprint": pipe.fingerprint()}
    assert made["scheduler"]["class"] == "DPMPP2SAncestralScheduler"
    assert made["scheduler"]["config"]["eta"] == pipe.scheduler.config.eta
    assert made["arguments"]["num_inference_steps"] == 1  # the model's recommendation
    assert made["arguments"]["guidance_scale"] == 7.5  # the paper's
    assert {"longvid", "torch", "diffusers", "transformers", "python"} <= made["versions"].keys()
    assert made["device"]["type"] == "cpu" and made["device"]["threads"] == torch.get_num_threads()
    assert {"load_seconds", "first_frame_seconds", "total_seconds", "frames_per_second"} <= made["timing"].keys()
    assert made["command"] == f"longvid generate '{PROMPT}' --model {model} --num-frames 2 --output demo.mp4 --quiet"


def test_the_command_makes_the_frames_that_the_pipeline_makes(run, model):
    run("generate", PROMPT, "--model", model, "--seed", 3, "--output", "frames/", "--guidance-scale", 4)
    pipe = LongVideoPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(PROMPT, guidance_scale=4, generator=torch.Generator().manual_seed(3), output_type="pil").frames[0]
    made = [np.asarray(Image.open(path)) for path in sorted(Path("frames").glob("*.png"))]
    assert len(made) == len(expected) == 3
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(made, expected, strict=True))


def test_a_record_makes_the_same_video_again_under_another_name(run, model):
    run("generate", PROMPT, "--model", model, "--output", "demo.mkv", "--codec", "ffv1", "--scheduler", "ddim")
    again = run("generate", "--from-json", "demo.json")
    assert again.code == 0, again.err
    assert record("demo-2.json")["scheduler"]["class"] == "DDIMScheduler"
    assert torch.equal(frames("demo.mkv"), frames("demo-2.mkv"))
    assert "will differ" not in again.err


def test_a_record_of_another_model_is_made_again_with_a_warning(run, model):
    run("generate", PROMPT, "--model", model, "--output", "demo.mp4", "--num-frames", 1)
    changed = record()
    changed["model"]["fingerprint"]["unet"] = "0" * 16
    Path("demo.json").write_text(json.dumps(changed))
    again = run("generate", "--from-json", "demo.json", "--quiet")
    assert again.code == 0
    assert (
        again.err == "longvid: warning: the video will differ from the recorded one: unet of the model changed since\n"
    )


def test_the_default_seed_is_drawn_and_recorded(run, model):
    seeds = set()
    for _ in range(2):
        run("generate", PROMPT, "--model", model, "--num-frames", 1, "--output", "demo.gif")
        seeds.add(record()["seed"])
    assert len(seeds) == 2


def test_json_prints_the_record_and_nothing_else(run, model):
    result = run("generate", PROMPT, "--model", model, "--num-frames", 1, "--output", "demo.webm", "--json", "--quiet")
    assert json.loads(result.out) == record() and result.err == ""


def test_settings_come_from_a_file_from_words_and_from_options(run, model):
    Path("run.yaml").write_text(
        f"prompt: {PROMPT}\nmodel: {model}\nnum_frames: 9\noutput:\n  fps: 12\n  path: demo.mp4\n"
    )
    words = ["num_frames=2", "output.pixel_format=yuv444p", "options.redraw=eval", "scheduler.options.eta=0.5"]
    result = run("generate", "--config", "run.yaml", *words, "--noise-level", 20)
    assert result.code == 0, result.err
    made = record()
    assert (made["output"]["frames"], made["output"]["fps"], made["output"]["pixel_format"]) == (2, 12, "yuv444p")
    assert made["arguments"]["redraw"] == "eval" and made["arguments"]["noise_level"] == 20
    assert made["scheduler"]["config"]["eta"] == 0.5


def test_several_prompts_tell_one_video(run, model):
    words = ["a red circle", "a blue circle", "--num-frames", 5, "--model", model, "--output", "demo.mp4"]
    assert run("generate", *words).code == 0
    assert record()["arguments"]["frames_per_prompt"] == [3, 2] and record()["output"]["frames"] == 5


def test_a_given_image_is_the_first_frame_and_a_given_video_is_continued(run, model):
    Image.new("RGB", (50, 40), "red").save("first.png")
    common = ["--model", model, "--num-frames", 2]
    assert run("generate", PROMPT, *common, "--image", "first.png", "--output", "one.mp4").code == 0
    assert run("generate", PROMPT, *common, "--video", "one.mp4", "--output", "two.mp4").code == 0
    assert record("two.json")["settings"]["video"] == str(Path("one.mp4").resolve())
    assert frames("two.mp4").shape[2] == 2


def test_the_sheet_and_the_masks_are_drawn(run, model):
    words = ["--contact-sheet", "sheet.png", "--show-masks", "masks.png", "--output", "demo.mp4", "--model", model]
    assert run("generate", PROMPT, *words, "--image", "first.png").code == 1  # there is no such image
    assert run("generate", PROMPT, *words).code == 0
    (sheet_width, sheet_height), (width, height) = Image.open("sheet.png").size, Image.open("masks.png").size
    assert sheet_width * sheet_height >= 3 * 32 * 32  # three frames
    assert width >= 2 * 32 and height >= 2 * 32  # frames 1 and 2, each with its mask


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["a", "--model", "longvid/art-v-tny"], "no bundled model is called 'longvid/art-v-tny'"),
        (["a", "--output", "demo.mp5"], "did you mean '.mp4'?"),
        (["a", "--output", "/proc/demo.mp4"], "cannot write"),
        (["a", "--image", "no.png"], "--image: there is no file"),
        (["a", "--image", "text.png"], "text.png is damaged or not an image"),
        (["a", "--video", "no.mp4"], "--video: there is no file"),
        (["a", "num_frame=3"], "unknown option 'num_frame'; did you mean 'num_frames'?"),
        (["a", "--from-json", "text.png"], "is not a record"),
        (["prompt=[1,2]"], "prompt must be a text or a list of texts; got [1, 2]"),
    ],
)
def test_bad_input_is_found_before_the_model_is_loaded(run, model, words, hint):
    Path("text.png").write_text("no image")
    result = run("generate", *words, *([] if "--model" in words else ["--model", model]))
    assert result.code == 1 and result.err.startswith("longvid: error: ") and result.err.count("\n") == 1
    assert hint in result.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--height", 33], "height must be a multiple of 16"),
        (["--scheduler", "ddmi"], "unknown scheduler 'ddmi'"),
        (["scheduler.options.etta=1"], "DPMPP2SAncestralScheduler has no option 'etta'; did you mean 'eta'?"),
        (["options.redrw=eval"], "ARTVPipeline takes no argument 'redrw'; did you mean 'redraw'?"),
        (["--codec", "libx246"], "codec must be one of"),
        (["--crf", 99], "crf must lie in [0, 51]"),
        (["--frames-per-prompt", "2", "--num-frames", "9"], "got num_frames=9"),
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
        (["--noise-level", 5000], "noise_level must be"),
    ],
)
def test_what_only_the_model_can_refuse_is_one_clear_line_and_leaves_no_file(run, model, words, hint):
    result = run("generate", PROMPT, "--model", model, "--output", "demo.mp4", "--quiet", *words)
    assert result.code == 1
    assert result.err.startswith("longvid: error: ") and hint in result.err and result.err.count("\n") == 1
    assert not Path("demo.mp4").exists() and not Path("demo.json").exists()


def test_words_the_model_never_learned_are_listed(run, model, tmp_path):
    from transformers import CLIPTokenizer

    letters = {token: index for index, token in enumerate(["a</w>", "<|startoftext|>", "<|endoftext|>"])}
    closed = CLIPTokenizer(vocab=letters, merges=[], model_max_length=12, closed_vocabulary=True)
    tiny.art_v(tokenizer=closed).save_pretrained(tmp_path / "closed")
    result = run("generate", "a dragon", "--model", tmp_path / "closed", "--num-frames", 1, "--output", "demo.mp4")
    assert result.code == 0 and "never learned these words: dragon" in result.err
    assert record()["unknown_words"] == ["dragon"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_the_frames_so_far_in_a_playable_file(run, model, signum, code):
    output = Path.cwd() / "demo.mp4"

    def stop_after_some_frames() -> None:
        while not (output.exists() and output.stat().st_size > 4000):
            time.sleep(0.01)
        os.kill(os.getpid(), signum)

    threading.Thread(target=stop_after_some_frames, daemon=True).start()
    result = run("generate", PROMPT, "--model", model, "--num-frames", 100_000, "--output", output)
    made = record()
    assert result.code == code and made["status"] == "interrupted"
    assert 0 < made["output"]["frames"] == frames("demo.mp4").shape[2] < 100_000
    assert f"the {made['output']['frames']} of 100000 frames made so far are in" in result.err


class FailingPipeline(ARTVPipeline):
    """Fails at the third frame, as a bug or a full memory would."""

    def predictor(self, window, *args, **kwargs):
        if window.index == 2:
            raise RuntimeError("out of memory")
        return super().predictor(window, *args, **kwargs)


def test_an_error_keeps_the_frames_so_far_and_the_record_says_how_many(run, model, tmp_path):
    index = json.loads((model / "model_index.json").read_text())
    failing = tmp_path / "failing"
    failing.mkdir()
    for part in model.iterdir():
        (failing / part.name).symlink_to(part)
    (failing / "model_index.json").unlink()
    (failing / "model_index.json").write_text(json.dumps(index | {"_class_name": "FailingPipeline"}))
    result = run("generate", PROMPT, "--model", failing, "--num-frames", 5, "--output", "demo.mp4")
    assert result.code == 1
    assert "the 2 of 5 frames made so far are in demo.mp4" in result.err
    assert result.err.splitlines()[-1] == "longvid: error: RuntimeError: out of memory (add --debug for the traceback)"
    made = record()
    assert made["status"] == "failed" and made["error"] == "RuntimeError: out of memory"
    assert made["output"]["frames"] == frames("demo.mp4").shape[2] == 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--video", "in.mp4", "--output", "in.mp4"], "--output: 'in.mp4' is the video itself"),
        (["--video", "in.mp4", "--output", "a.mp4", "--show-masks", "in.mp4"], "--show-masks: 'in.mp4' is the video"),
        (["--image", "in.png", "--contact-sheet", "in.png"], "--contact-sheet: 'in.png' is the image itself"),
        (
            ["--image", "in.png", "output.path=in.mp4", "output.show_masks=in.png"],
            "--show-masks: 'in.png' is the image",
        ),
        (["--video", "in.mp4", "--run-dir", "run", "--events", "in.mp4"], "--events: 'in.mp4' is the video itself"),
    ],
)
def test_a_source_is_never_overwritten(run, model, words, hint):
    Image.new("RGB", (8, 8), "red").save("in.png")
    Path("in.mp4").write_bytes(b"not opened before the names are checked")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    result = run("generate", PROMPT, "--model", model, *words)
    assert result.code == 1 and hint in result.err and result.err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_prompt_with_signs_that_yaml_tools_read_is_taken_as_it_is(run, model):
    prompt, negative = "a sign that says ${hello}", "???"
    words = ["--num-frames", 1, "--output", "${take}.mp4", "--quiet"]
    result = run("generate", prompt, "--negative-prompt", negative, "--model", model, *words)
    assert result.code == 0, result.err
    assert Path("${take}.mp4").is_file() and record("${take}.json")["prompts"] == [prompt]
    assert record("${take}.json")["arguments"]["negative_prompt"] == negative
