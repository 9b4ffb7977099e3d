from __future__ import annotations

import json
import shutil

import pytest

import tiny
from longvid import bundled
from longvid.cli.models import count_stored, known_words
from longvid.modules.counting import count_parameters


@pytest.fixture
def bundle(model, tmp_path, monkeypatch):
    """Two bundled models, of which the second shares the VAE of the first."""
    root = tmp_path / "bundled"
    for name in ("first-tiny", "second-tiny"):
        shutil.copytree(model, root / name)
    shutil.rmtree(root / "second-tiny" / "vae")
    (root / "second-tiny" / "shared.json").write_text('{"vae": "../first-tiny/vae"}')
    monkeypatch.setattr(bundled, "ROOT", root)


def test_parameters_are_counted_without_loading_them(model):
    assert count_stored(model / "unet") == count_parameters(tiny.anchored_unet())
    assert count_stored(model / "vae") == count_parameters(tiny.vae())
    assert count_stored(model / "tokenizer") == 0


def test_variants_of_a_file_count_once(model, tmp_path):
    shutil.copytree(model / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(file, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert count_stored(tmp_path / "vae") == count_stored(model / "vae")


def test_a_damaged_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        count_stored(tmp_path)


def test_the_list_names_every_component_with_its_size_and_where_it_is_stored(run, bundle, model):
    report = json.loads(run("models", "--json").out)
    first, second = report["bundled"]
    assert (first["name"], second["name"]) == ("longvid/first-tiny", "longvid/second-tiny")
    assert first["components"]["unet"] == {
        "class": "AnchoredUNet",
        "parameters": count_stored(model / "unet"),
        "shared_with": None,
    }
    assert second["components"]["vae"]["shared_with"] == "longvid/first-tiny"
    assert first["parameters"] == second["parameters"] == sum(c["parameters"] for c in first["components"].values())


def test_the_paper_size_models_have_the_counts_of_the_papers(run):
    art_v, harivo, streaming_t2v = json.loads(run("models", "--json").out)["paper_size"]
    counts = {part: component["parameters"] for part, component in art_v["components"].items()}
    assert counts == {
        "unet": 1_167_668_804,
        "mask_network": 51_178_113,
        "vae": 83_653_863,
        "text_encoder": 340_387_840,
    }
    counts = {part: component["parameters"] for part, component in harivo["components"].items()}
    assert counts["unet"] == 859_520_964 + 417_137_600
    assert (counts["mapping_network"], counts["frame_tokens"]) == (8_328, 2_367_912)
    assert (counts["vae"], counts["text_encoder"]) == (83_653_863, 123_060_480)
    unused = 49408 * 1024 + 77 * 1024 + 1024 * 1024 + 1 + 2 * 1024  # the text half of OpenCLIP in the official file
    assert streaming_t2v["parameters"] == 3_232_602_140 - unused


def test_the_table_shows_what_the_json_holds(run, bundle):
    text = run("models").out
    assert "longvid/second-tiny" in text and "shared with longvid/first-tiny" in text
    assert "1,167,668,804" in text and "51,178,113" in text


def test_one_model_is_shown_with_its_settings_and_words(run, bundle):
    text = run("models", "longvid/first-tiny").out
    assert "num_inference_steps        1" in text and "words it knows" in text and "circle" in text


def test_an_unknown_model_names_the_nearest(run, bundle):
    assert "did you mean 'longvid/first-tiny'?" in run("models", "longvid/first-tny").err


def test_the_words_of_a_tokenizer_are_its_whole_tokens(model, tmp_path):
    assert known_words(model / "tokenizer") == sorted(tiny.WORDS)
    assert known_words(tmp_path) == []
