"""`longvid convert`, on a tiny checkpoint in the official form."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import tiny
from longvid import AppearancePreservationModule, ConditionalAttentionModule, LongVideoPipeline
from longvid.cli.main import main
from longvid.conversion import pipeline as conversion_pipeline
from longvid.conversion import read_weights, rename_checkpoint
from streaming_t2v_numbers import description, tensors

PREFIXES = {
    "unet.": "base_model.",
    "cam.branch.": "unet.",
    "cam.frame_encoder.": "unet.controlnet_cond_embedding.",
    "cam.skip_mergers.": "base_model.cross_attention_merger_down_blocks.",
    "cam.mid_merger.": "base_model.cross_attention_merger_mid_block.temporal_transformer.",
    "apm.image_tokens.": "resampler.context_embedding.",
    "text_encoder.": "text_encoder.text_model.",
    "vae.": "vae.",
}


def networks():
    unet = tiny.video_unet()
    return {
        "unet": unet,
        "cam": tiny.trained(ConditionalAttentionModule.from_unet(unet, frame_encoder_widths=(4, 4, 8, 8))),
        "apm": tiny.trained(
            AppearancePreservationModule.from_unet(
                unet, image_embed_dim=24, inner_dim=16, num_text_tokens=12, num_image_tokens=4
            )
        ),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(**description("ix_openclip_vision")["config"])
        ).eval(),
        "text_encoder": tiny.text_encoder(),
        "vae": tiny.vae(latent_channels=4),
    }


def official(parts):
    """Weights under the names of the official file."""
    layers = {module.layer: name for name, module in parts["unet"].named_modules() if hasattr(module, "layer")}
    named = {key: value for key, value in tensors("ix_openclip_vision").items() if key.startswith("image_encoder.")}
    for part in ("unet", "cam", "apm", "text_encoder", "vae"):
        for key, value in parts[part].state_dict().items():
            if key.startswith("mixers."):
                _, layer, rest = key.split(".", 2)
                place = f"base_model.{layers[int(layer)]}.transformer_blocks.0.attn2."
                named[place + rest.replace("norm", "conv_ln")] = value
                continue
            mine = f"{part}.{key}"
            prefix = max((prefix for prefix in PREFIXES if mine.startswith(prefix)), key=len)
            rest = mine.removeprefix(prefix)
            if prefix == "cam.skip_mergers.":
                number, rest = rest.split(".", 1)
                rest = f"{number}.temporal_transformer.{rest}"
            named[PREFIXES[prefix] + rest] = value
    return named


@pytest.fixture
def checkpoint(tmp_path):
    """A Lightning checkpoint, with the optimizer's state beside the weights."""
    path = tmp_path / "streaming_t2v.ckpt"
    torch.save({"epoch": 3, "state_dict": official(networks()), "optimizer_states": [{"state": {}}]}, path)
    return path


def test_the_folder_loads_and_makes_what_the_checkpoint_makes(checkpoint, tmp_path, monkeypatch, capsys, seeded):
    monkeypatch.setattr(conversion_pipeline, "released_networks", networks)
    tiny.tokenizer().save_pretrained(tmp_path / "tokenizer")
    words = ["--tokenizer", str(tmp_path / "tokenizer"), "--dtype", "float32", "--output", str(tmp_path / "model")]
    assert main(["convert", str(checkpoint), *words]) == 0
    assert "a StreamingT2VPipeline" in capsys.readouterr().out
    assert not list((tmp_path / "model").rglob("*.bin"))
    loaded = LongVideoPipeline.from_pretrained(tmp_path / "model")
    parts = networks()
    weights = rename_checkpoint(official(parts))
    for part, expected in weights.items():
        found = loaded.components[part].state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    loaded.set_progress_bar_config(disable=True)
    video = loaded("a red circle", num_frames=20, num_inference_steps=1, generator=seeded(), output_type="pt").frames
    assert video.shape == (1, 20, 3, 32, 32) and video.isfinite().all()
    assert main(["convert", str(checkpoint), *words]) == 1
    assert "exists already" in capsys.readouterr().err


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.zeros(1)}, "hook": Code()}, "holds more than weights, which would run code"),
        ({"state_dict": {"a": torch.zeros(1), "b": 3}}, "holds more than weights: b"),
        ([1, 2], "holds no named weights"),
    ],
)
def test_a_pickle_that_holds_more_than_weights_is_refused(content, message, tmp_path, capsys):
    torch.save(content, tmp_path / "some.ckpt")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "some.ckpt")
    assert "this must not run" not in capsys.readouterr().out


def test_files_that_are_no_checkpoints_are_refused(tmp_path, capsys):
    (tmp_path / "broken.ckpt").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name in ("broken.ckpt", "broken.safetensors"):
        with pytest.raises(ValueError, match="is damaged"):
            read_weights(tmp_path / name)
    assert main(["convert", str(tmp_path / "none.ckpt"), "--output", str(tmp_path / "out")]) == 1
    assert "there is no checkpoint file at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_some_weights_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion_pipeline, "released_networks", networks)
    weights = {key: value for key, value in official(networks()).items() if not key.startswith("resampler.")}
    with pytest.raises(ValueError, match=r"missing: apm.image_tokens \(4\)"):
        conversion_pipeline.save_streaming_t2v(weights, tmp_path / "model", tokenizer=tiny.tokenizer())
    assert not (tmp_path / "model").exists()
