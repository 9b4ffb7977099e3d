"""All 3407 weights of the official checkpoint find their place in the full-size components."""

import json

import pytest
import torch

from longvid.conversion import released_networks, rename_checkpoint, split_checkpoint
from longvid.modules import count_parameters
from streaming_t2v_numbers import FOLDER, parts


@pytest.fixture(scope="module")
def networks():
    return released_networks()


@pytest.fixture(scope="module")
def checkpoint():
    shapes = json.loads((FOLDER / "checkpoint_keys_full.json").read_text(encoding="utf-8"))["keys"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def test_every_component_gets_its_names_and_shapes(networks, checkpoint):
    split = split_checkpoint(checkpoint, networks)
    assert split.keys() == networks.keys()
    for part, network in networks.items():
        assert {k: v.shape for k, v in split[part].items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_nothing_is_lost_but_the_text_half_of_open_clip(networks, checkpoint):
    assert len(checkpoint) == 3407
    unused = 49408 * 1024 + 77 * 1024 + 1024 * 1024 + 1 + 2 * 1024
    assert sum(map(count_parameters, networks.values())) + unused == 3_232_602_140


def test_the_components_have_the_counts_of_the_specification(networks):
    cam, apm = networks["cam"], networks["apm"]
    mergers = count_parameters(cam.skip_mergers) + count_parameters(cam.mid_merger)
    assert mergers == 68_867_200
    assert count_parameters(cam.frame_encoder) == 3_587_488
    assert count_parameters(apm.mixers) == 377_744
    assert count_parameters(apm.image_tokens) == 1024 * 1280 + 1280 + 1280 * 16384 + 16384
    assert [merger.norm.num_channels for merger in cam.skip_mergers] == [320] * 4 + [640] * 3 + [1280] * 5
    assert networks["unet"].num_text_layers == len(apm.mixers) == 16


def test_the_mixers_are_numbered_as_the_text_layers(networks, checkpoint):
    names = {module.layer: name for name, module in networks["unet"].named_modules() if hasattr(module, "layer")}
    marked = {key: (key if key.endswith("attn2.alpha") else value) for key, value in checkpoint.items()}
    mixers = rename_checkpoint(marked)["apm"]
    for layer, name in names.items():
        assert mixers[f"mixers.{layer}.alpha"] == f"base_model.{name}.transformer_blocks.0.attn2.alpha"


def test_the_official_names_of_unet_and_cam_are_not_mixed_up():
    split = parts("iv_weights_base_model", "iv_weights_unet")
    assert split.keys() == {"unet", "cam", "apm"}
    assert any(key.startswith("up_blocks.") for key in split["unet"])
    assert {key.split(".")[0] for key in split["cam"]} == {"branch", "frame_encoder", "skip_mergers", "mid_merger"}


def test_missing_unexpected_and_misshapen_weights_are_listed_by_prefix(networks, checkpoint):
    broken = {key: value for key, value in checkpoint.items() if "cross_attention_merger_mid_block" not in key}
    broken["optimizer.step"] = torch.empty(1)
    broken["base_model.extra.weight"] = torch.empty(1)
    broken["vae.quant_conv.bias"] = torch.empty(9)
    with pytest.raises(ValueError) as error:
        split_checkpoint(broken, networks)
    message = str(error.value)
    assert "missing: cam.mid_merger (11): cam.mid_merger.attention.to_k.weight, " in message
    assert "unexpected: optimizer.step (1)" in message and "unexpected: unet.extra (1)" in message
    assert "of a wrong shape: vae.quant_conv (1): vae.quant_conv.bias (9,) instead of (8,)" in message


def test_a_file_of_something_else_is_an_error():
    with pytest.raises(ValueError, match=r"not weights of StreamingT2V:\nmodel.diffusion_model \(2\)"):
        rename_checkpoint({f"model.diffusion_model.{name}": torch.zeros(1) for name in "ab"})
