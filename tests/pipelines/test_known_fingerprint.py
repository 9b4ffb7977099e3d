"""The fingerprint that a pipeline remembers: computed once, and never that of the weights it had before."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import tiny
from longvid.pipelines.fingerprint import adapter_state, fingerprint_of, stamp_of

LORA = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=r"down_blocks.*attentions.*to_q")


@pytest.fixture
def pipe():
    return tiny.harivo()


def adapted(pipe, name="style"):
    torch.manual_seed(4)
    pipe.unet.add_adapter(LORA, adapter_name=name)
    return pipe


def changed(pipe, change) -> set[str]:
    """The parts whose remembered fingerprint a change renews; it is that of the pipeline in any case."""
    before = dict(pipe.known_fingerprint())
    change(pipe)
    after = pipe.known_fingerprint()
    assert after == pipe.fingerprint()
    return {name for name in after if after[name] != before[name]}


def average_weights(pipe):
    average = EMAModel([2 * parameter.data for parameter in pipe.unet.parameters()])
    average.copy_to(pipe.unet.parameters())


def write_one_number(pipe):
    pipe.vae.decoder.conv_out.bias.data[0] += 1e-6


def round_weights(pipe):
    pipe.unet.to(torch.float16)
    pipe.unet.to(torch.float32)


def halve_text_encoder(pipe):
    pipe.text_encoder.to(torch.float16)


def learn_word(pipe):
    pipe.load_textual_inversion({"<thing>": torch.ones(tiny.TEXT_WIDTH)})


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (adapted, {"unet"}),
        (average_weights, {"unet"}),
        (write_one_number, {"vae"}),
        (round_weights, {"unet"}),
        (halve_text_encoder, {"text_encoder"}),
        (learn_word, {"text_encoder", "tokenizer"}),
        (lambda pipe: pipe.register_to_config(window_size=5), {"pipeline"}),
        (lambda pipe: pipe.unet.register_to_config(sample_size=3), {"unet"}),
    ],
    ids=["adapter", "average", "number", "rounding", "dtype", "word", "constant", "configuration"],
)
def test_whatever_changes_a_pipeline_changes_the_fingerprint_it_remembers(pipe, change, parts):
    assert changed(pipe, change) == parts


def test_a_lora_that_is_weighted_switched_off_fused_or_unloaded_is_another_model(tmp_path, pipe):
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(adapted(tiny.harivo(), "default").unet))
    save_file({f"unet.{key}": value.contiguous() for key, value in layers.items()}, tmp_path / "lora.safetensors")
    plain = pipe.known_fingerprint()
    assert changed(pipe, lambda p: p.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="x")) == {"unet"}
    full = pipe.known_fingerprint()
    assert changed(pipe, lambda p: p.set_adapters("x", 0.3)) == {"unet"}
    assert changed(pipe, lambda p: p.disable_lora()) == {"unet"}
    assert changed(pipe, lambda p: p.enable_lora()) == {"unet"}
    pipe.set_adapters("x", 1.0)
    assert pipe.known_fingerprint() == full
    assert changed(pipe, lambda p: p.fuse_lora(components=["unet"])) == {"unet"}
    assert changed(pipe, lambda p: p.unload_lora_weights()) == {"unet"}
    assert pipe.known_fingerprint() != plain  # it is fused into the weights


def test_the_scale_of_an_ip_adapter_belongs_to_the_fingerprint(pipe):
    weights = {"image_proj": {"proj.weight": torch.ones(128, 16), "proj.bias": torch.ones(128),
                              "norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}, "ip_adapter": {}}  # fmt: skip
    names = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor") and "motion" not in name]
    for name in names:
        number = 2 * names.index(name) + 1
        width = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for part in ("to_k_ip", "to_v_ip"):
            weights["ip_adapter"][f"{number}.{part}.weight"] = torch.ones(width, 32)
    assert "unet" in changed(pipe, lambda p: p.unet._load_ip_adapter_weights([weights]))
    assert changed(pipe, lambda p: p.set_ip_adapter_scale(0.5)) == {"unet"}
    assert changed(pipe, lambda p: p.set_ip_adapter_scale(0.0)) == {"unet"}


def test_freeu_belongs_to_the_fingerprint(pipe):
    plain = pipe.known_fingerprint()
    factors = {"s1": 0.9, "s2": 0.2, "b1": 1.5, "b2": 1.6}
    assert changed(pipe, lambda p: p.unet.enable_freeu(**factors)) == {"unet"}
    assert changed(pipe, lambda p: p.unet.enable_freeu(**{**factors, "b2": 1.4})) == {"unet"}
    assert changed(pipe, lambda p: p.unet.disable_freeu()) == {"unet"}
    assert pipe.known_fingerprint() == plain


def test_what_did_not_change_is_not_hashed_again(pipe):
    known = pipe.known_fingerprint()
    pipe("a red circle", num_frames=2, num_inference_steps=1, output_type="latent")
    assert pipe.known_fingerprint() is known
    stamp = stamp_of(pipe.unet)
    for parameter in pipe.unet.parameters():
        parameter.data = parameter.data.clone()  # other memory, as behind every stream of an offloaded pipeline
    assert stamp_of(pipe.unet) == stamp


def test_a_model_without_adapters_keeps_the_fingerprint_that_old_run_folders_hold():
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6).view(2, 3))
        layer.bias.fill_(0.5)
    assert adapter_state(layer) == [] and fingerprint_of(layer) == "2a2a24f10a3ea5fa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (4, 4, 3, 3)])
def test_the_stamp_sees_every_single_number_of_any_kind(dtype, shape):
    module = torch.nn.Module()
    module.register_buffer("numbers", torch.zeros(shape, dtype=dtype))
    if len(shape) == 4:
        module.to(memory_format=torch.channels_last)
    flat = module.numbers.data.view(-1) if len(shape) < 4 else module.numbers.data.permute(0, 2, 3, 1).reshape(-1)
    stamps = {stamp_of(module)}
    for index in range(flat.numel()):
        flat[index] = 1
        stamps.add(stamp_of(module))
    assert len(stamps) == flat.numel() + 1
