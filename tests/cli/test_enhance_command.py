from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

import tiny
from longvid import VideoEnhancerPipeline, VideoWriter
from longvid.cli.enhance import EnhanceSettings, make_parser
from longvid.pipelines.enhance import VideoEnhancerPipeline as Pipeline
from longvid.video.io import read_video

PROMPT = "a red circle"


@pytest.fixture(scope="session")
def enhancer(tmp_path_factory) -> Path:
    """An enhancer folder with random weights and one step."""
    folder = tmp_path_factory.mktemp("model") / "tiny-enhancer"
    defaults = {"num_inference_steps": 1, "chunk_size": 4, "overlap": 2}
    tiny.enhancer(call_defaults=defaults).save_pretrained(folder)
    return folder


@pytest.fixture
def source(run) -> str:
    """A video of 7 frames at 12 frames per second, in the folder where `run` runs."""
    with VideoWriter("in.mkv", fps=12, codec="ffv1") as writer:
        writer.write(torch.rand(7, 3, 10, 16, generator=torch.Generator().manual_seed(0)))
    return "in.mkv"


def enhance(run, *words):
    return run("enhance", *words)


def test_a_video_is_enhanced_frame_for_frame_as_the_pipeline_does_it(run, enhancer, source):
    words = [
        "--prompt",
        PROMPT,
        "--model",
        enhancer,
        "--output",
        "out.mkv",
        "--codec",
        "ffv1",
        "--seed",
        5,
        "--height",
        20,
    ]
    result = enhance(run, source, *words)
    assert result.code == 0, result.err
    made = read_video("out.mkv")
    assert (made.num_frames, made.fps, made.height, made.width) == (7, 12, 20, 32)
    pipe = VideoEnhancerPipeline.from_pretrained(enhancer)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    expected = pipe(PROMPT, read_video(source), height=20, generator=generator, output_type="pt").frames
    assert (made.read().transpose(1, 2) - expected).abs().max() <= 0.5 / 255 + 1e-6
    assert "out.mkv: 7 frames, 32x20, 12 fps, ffv1" in result.out
    assert all(phase in result.err for phase in ("encoding", "denoising", "decoding"))


def test_the_record_names_the_model_the_input_and_the_settings(run, enhancer, source):
    words = [
        "--prompt",
        PROMPT,
        "--model",
        enhancer,
        "--output",
        "out.mp4",
        "--noise-timestep",
        300,
        "--scheduler",
        "euler",
        "--host-memory-limit",
        0.5,
    ]
    result = enhance(run, source, *words, "--quiet", "--contact-sheet", "sheet.png")
    assert result.code == 0 and result.err == "" and result.out == "" and Path("sheet.png").exists()
    made = json.loads(Path("out.json").read_text())
    assert made["status"] == "complete" and made["prompts"] == [PROMPT] and made["output"]["frames"] == 7
    assert made["model"]["class"] == "VideoEnhancerPipeline" and made["scheduler"]["class"] == "EulerDiscreteScheduler"
    assert made["settings"]["video"] == str(Path(source).resolve())
    arguments = made["arguments"]
    assert arguments["host_memory_limit"] == 2**29
    assert arguments["noise_timestep"] == 300 and "strength" not in arguments
    assert (arguments["chunk_size"], arguments["overlap"], arguments["blending"]) == (4, 2, "paper")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_stock_text_to_video_folder_and_a_folder_of_pngs_will_do(run, tmp_path, enhancer):
    from diffusers import TextToVideoSDPipeline

    TextToVideoSDPipeline(**tiny.text_to_video_parts()).save_pretrained("stock")
    with VideoWriter("frames/") as writer:
        writer.write(torch.rand(1, 3, 3, 8, 8))
    result = enhance(run, "frames", "--prompt", "", "--model", "./stock", "--num-inference-steps", 1, "--quiet")
    assert result.code == 0, result.err
    assert read_video("frames-enhanced.mp4").num_frames == 3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "expected a video, such as in.mp4"),
        (["in.mkv"], "expected --prompt"),
        (["in.mkv", "more.mp4", "--prompt", "a"], "expected one video; got 'more.mp4' as well"),
        (["in.mkv", "--strenght", "1"], "unknown option '--strenght'; did you mean '--strength'?"),
        (["in.mkv", "--strength", "1.5"], "expected a number in (0, 1]; got '1.5'"),
        (["in.mkv", "--blending", "papre"], "did you mean 'paper'?"),
        (["in.mkv", "--host-memory-limit", "-1"], "expected a number of at least 0, in GiB; got '-1'"),
        (["in.mkv", "--chunk-size", "0"], "expected a whole number of at least 1; got '0'"),
    ],
)
def test_wrong_usage_is_one_line(run, words, hint):
    result = enhance(run, *words)
    assert result.code == 2 and hint in result.err.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nowhere.mp4"], "there is no video at nowhere.mp4"),
        (["in.mkv", "--output", "out.mpg"], "--output: expected a name that ends in"),
        (["in.mkv", "--output", "in.mkv"], "--output: 'in.mkv' is the video itself"),
        (["in.mkv", "--chunk-size", 8, "--overlap", 8], "--overlap must be below --chunk-size; got 8 and 8"),
        (["in.mkv", "--checkpoint", "steps"], "--checkpoint needs --seed"),
        (["in.mkv", "--checkpoint", "in.mkv", "--seed", 1], "--checkpoint: 'in.mkv' is the video itself"),
        (
            ["in.mkv", "--output", "out.mp4", "--checkpoint", "out.mp4", "--seed", 1],
            "--output: 'out.mp4' is the file of --checkpoint itself",
        ),
        (["in.mkv", "--strength", 0.5, "--noise-timestep", 500], "expected --strength or --noise-timestep; got both"),
        (["in.mkv", "--model", "no such model"], "unknown model 'no such model'"),
        (["in.mkv", "--seed", 2**63], "seed must lie in"),
    ],
)
def test_bad_input_is_found_before_the_model_is_loaded(run, source, enhancer, words, hint, monkeypatch):
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    result = enhance(run, "--prompt", "a", *(["--model", enhancer] if "--model" not in words else []), *words)
    assert result.code == 1 and hint in result.err and result.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["in.mkv"]


def test_what_only_the_model_can_refuse_is_one_line_and_leaves_no_file(run, source, enhancer, model):
    words = [source, "--prompt", "a", "--output", "out.mp4", "--quiet"]
    refused = enhance(run, *words, "--model", enhancer, "--noise-timestep", 2000)
    assert refused.code == 1 and "noise_timestep must lie in (0, 1000]; got 2000" in refused.err
    other = enhance(run, *words, "--model", model)
    assert other.code == 1 and "ARTVPipeline, not a VideoEnhancerPipeline" in other.err
    assert [path.name for path in Path().iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("phase", ["denoising", "decoding"])
def test_ctrl_c_leaves_what_was_decoded_and_a_record_that_says_so(run, enhancer, phase, monkeypatch):
    with VideoWriter("in.mkv", fps=12, codec="ffv1") as writer:
        writer.write(torch.rand(24, 3, 8, 8))
    if phase == "decoding":  # slowly, so that the signal comes in between
        decode = Pipeline._frames
        monkeypatch.setattr(Pipeline, "_frames", lambda *words: [decode(*words), time.sleep(0.05)][0])

    def stop() -> None:
        record = Path("out.json")
        while not (Path("out.mp4").exists() if phase == "decoding" else record.exists()):
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    steps = 200 if phase == "denoising" else 1
    words = ["--prompt", PROMPT, "--model", enhancer, "--output", "out.mp4", "--num-inference-steps", steps]
    words += ["--checkpoint", "out.steps", "--seed", 5] if phase == "decoding" else []
    result = enhance(run, "in.mkv", *words)
    made = json.loads(Path("out.json").read_text())
    assert result.code == 130 and made["status"] == "interrupted"
    if phase == "denoising":
        assert (
            "no frame was made yet; with --checkpoint FILE, steps are kept" in result.err
            and not Path("out.mp4").exists()
        )
    else:
        assert 0 < made["output"]["frames"] == read_video("out.mp4").num_frames < 24
        assert f"the {made['output']['frames']} of 24 frames made so far are in out.mp4" in result.err
        assert "out.steps keeps the steps made so far; the same command goes on from them" in result.err
        again = enhance(run, "in.mkv", *words, "--quiet")
        assert again.code == 0 and read_video("out.mp4").num_frames == 24 and not Path("out.steps").exists()


def test_every_setting_has_an_option_and_the_other_way_round():
    options = vars(make_parser("longvid enhance", "").parse_args([]))
    output = {"output", "fps", "codec", "crf", "pixel_format", "contact_sheet", "overwrite"}
    assert set(options) - {"json", "quiet"} - output == set(EnhanceSettings.__dataclass_fields__) - {"output"}
