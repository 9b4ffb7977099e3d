from __future__ import annotations

import json
from pathlib import Path

import tiny


def test_the_report_is_printed_and_written(run, model):
    result = run("evaluate", "--sprites", model, "--part", "vae", "--json", "report.json", "--quiet")
    assert result.code == 0, result.err
    report = json.loads(Path("report.json").read_text())
    assert report["model"]["name"] == str(model)
    assert report["title"] in result.out and "95 % interval" in result.out


def test_an_unknown_model_and_a_path_that_cannot_be_written_are_found_first(run, model):
    assert "no bundled model is called" in run("evaluate", "--sprites", "longvid/none").err
    assert "cannot write" in run("evaluate", "--sprites", model, "--json", "no/report.json").err


def test_an_image_model_is_measured_by_its_pictures(run, tmp_path):
    tiny.stable_diffusion().save_pretrained(tmp_path / "image-model")
    words = ("evaluate", "--sprites", tmp_path / "image-model", "--part", "image", "--num-prompts", 2, "--quiet")
    result = run(*words, "--json", "report.json")
    assert result.code == 0, result.err
    report = json.loads(Path("report.json").read_text())
    assert report["title"] == "text to image" and report["figures"]["shape"]["n"] == 2
    assert report["settings"]["call options"]["num_inference_steps"] == 25
    assert report["model"]["fingerprint"].keys() >= {"unet", "vae", "text_encoder"}
