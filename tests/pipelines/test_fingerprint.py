"""Fingerprints: equal for equal pipelines, different exactly where two pipelines differ."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from toy_pipeline import ToyBase, ToyMixer, ToyPipeline, tiny_components


@pytest.fixture(scope="module")
def pipe() -> ToyPipeline:
    return ToyPipeline(**tiny_components(), mixer=ToyMixer(), window_size=7)


@pytest.fixture(scope="module")
def saved(pipe: ToyPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(folder)
    return folder


def test_the_fingerprint_is_the_same_wherever_the_model_was_loaded_from(pipe, saved, tmp_path):
    before = pipe.fingerprint()
    assert before == ToyBase.from_pretrained(saved).fingerprint() == pipe.fingerprint()
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    assert before == ToyBase.from_pretrained(tmp_path).fingerprint()
    assert before.keys() == {*pipe.components, "pipeline"}
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in before.values())


def test_the_fingerprint_changes_exactly_where_the_pipeline_does(saved):
    pipe = ToyBase.from_pretrained(saved)

    def changed() -> set[str]:
        after = pipe.fingerprint()
        return {name for name in after if after[name] != before[name]}

    before = pipe.fingerprint()
    pipe.tokenizer("a b", padding="max_length", max_length=8, truncation=True)
    assert changed() == set()  # a call leaves no trace
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] += 1e-6
    assert changed() == {"vae"}
    pipe.scheduler = DDIMScheduler()
    pipe.unet.to(torch.bfloat16)
    pipe.mixer = None
    pipe.register_to_config(window_size=8)
    assert changed() == {"vae", "scheduler", "unet", "mixer", "pipeline"}
    assert pipe.fingerprint()["mixer"] == "none"


def test_weights_without_values_have_no_fingerprint(saved):
    pipe = ToyBase.from_pretrained(saved)
    pipe.mixer.to("meta")
    with pytest.raises(ValueError, match="meta device"):
        pipe.fingerprint()
