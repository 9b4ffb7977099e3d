"""Laws of the anchored UNet: identity on the base, what each condition does, and diffusers' own contracts."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from networks import ONE_LEVEL, PLAIN_BOTTOM, TWO_LEVELS, build, draw, shake

from longvid.modules import AnchoredUNet


def stock(config=TWO_LEVELS) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**config).eval()


@torch.no_grad()
@pytest.mark.parametrize("config", [TWO_LEVELS, PLAIN_BOTTOM], ids=["two_levels", "plain_bottom"])
@pytest.mark.parametrize("level_embedding", ["table", "mlp", "shared"])
@pytest.mark.parametrize("anchor_injection", ["block", "cross_attn", "none"])
def test_a_grown_unet_equals_the_stock_unet_bit_for_bit(config, level_embedding, anchor_injection, batch, conditions):
    base = stock(config)
    grown = AnchoredUNet.from_unet(base, level_embedding=level_embedding, anchor_injection=anchor_injection)
    expected = base(*batch()).sample
    assert torch.equal(grown(*batch()).sample, expected)
    assert torch.equal(grown(*batch(), **conditions().inputs(None)).sample, expected)


@torch.no_grad()
def test_with_the_adapter_of_t2i_adapter_the_identity_holds_until_references_are_passed(batch, conditions):
    grown = AnchoredUNet.from_unet(stock(), adapter_zero_init=False)
    expected = stock()(*batch()).sample
    given = conditions()
    assert torch.equal(grown(*batch(), anchor=given.anchor, noise_level=given.noise_level).sample, expected)
    assert not torch.equal(grown(*batch(), references=given.references).sample, expected)


def test_stock_weights_miss_only_the_keys_of_new_parts():
    missing, unexpected = build().load_state_dict(stock().state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith(("adapter.", "class_embedding.")) or ".transformer_blocks.1." in key for key in missing)


@torch.no_grad()
@pytest.mark.parametrize("level_embedding", ["table", "mlp", "shared"])
@pytest.mark.parametrize("anchor_injection", ["block", "cross_attn"])
def test_every_condition_changes_the_output_of_a_trained_network(level_embedding, anchor_injection, batch, conditions):
    network = shake(build(level_embedding=level_embedding, anchor_injection=anchor_injection))
    inputs = conditions().inputs(None)
    output = network(*batch(), **inputs).sample
    for name in inputs:
        changed = inputs | {name: inputs[name].flip(0)}
        assert not torch.allclose(network(*batch(), **changed).sample, output), name


@torch.no_grad()
def test_blank_references_and_a_blank_anchor_are_not_the_same_as_none(batch):
    network = shake(build())
    without = network(*batch()).sample
    assert not torch.equal(network(*batch(), references=torch.zeros(2, 16, 8, 8)).sample, without)
    assert not torch.equal(network(*batch(), anchor=torch.zeros(2, 8, 8, 8)).sample, without)


@torch.no_grad()
def test_an_anchor_has_no_effect_on_a_network_without_anchor_part(batch, conditions):
    network = shake(build(anchor_injection="none"))
    anchor = conditions().anchor
    assert network.encode_anchor(anchor) is None
    assert torch.equal(network(*batch(), anchor=anchor).sample, network(*batch()).sample)


@torch.no_grad()
def test_the_anchor_is_a_set_of_patches_unless_positions_are_coded(batch, conditions):
    anchor = conditions().anchor
    shifted = anchor.roll((2, -4), dims=(-2, -1))  # whole patches change places
    for anchor_pos, invariant in {"none": True, "sincos": False}.items():
        network = shake(build(anchor_pos=anchor_pos))
        same = torch.allclose(
            network(*batch(), anchor=anchor).sample, network(*batch(), anchor=shifted).sample, atol=1e-5
        )
        assert same == invariant


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (10, 6)])
def test_encoding_beforehand_changes_nothing_and_consumes_nothing(size, batch, conditions):
    network, given = shake(build()), conditions(size)
    features, tokens = network.encode_references(given.references), network.encode_anchor(given.anchor)
    encoded = {"reference_features": features, "anchor_tokens": tokens, "noise_level": given.noise_level}
    raw = network(*batch(size), **given.inputs(None)).sample
    for _ in range(2):
        assert torch.equal(network(*batch(size), **encoded).sample, raw)
    assert len(features) == 2


@pytest.mark.parametrize("anchor_injection", ["block", "cross_attn"])
def test_gradient_checkpointing_leaves_output_and_gradients_alone(anchor_injection, batch, conditions):
    outputs, gradients = [], []
    for checkpointing in (False, True):
        network = shake(build(anchor_injection=anchor_injection)).train()
        if checkpointing:
            network.enable_gradient_checkpointing()
        output = network(*batch(), **conditions().inputs(None)).sample
        output.square().mean().backward()
        outputs.append(output)
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    assert torch.equal(*outputs)
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_parts_that_start_at_zero_are_reached_by_gradients(batch, conditions):
    network = AnchoredUNet.from_unet(stock(), level_embedding="shared").train()
    network(*batch(), **conditions().inputs(None)).sample.square().mean().backward()
    started = {
        "adapter.adapter.conv_in.weight",
        "adapter.adapter.body.1.resnets.1.block2.weight",
        "class_embedding.gate",
        "mid_block.attentions.0.transformer_blocks.1.attn1.to_out.0.weight",
        "mid_block.attentions.0.transformer_blocks.1.attn2.to_out.0.weight",
        "mid_block.attentions.0.transformer_blocks.1.ff.net.2.weight",
    }
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if name in started}
    assert gradients.keys() == started
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())


@torch.no_grad()
def test_saving_and_loading_keeps_configuration_and_output(tmp_path, batch, conditions):
    network = shake(build(anchor_injection="cross_attn", anchor_pos="sincos", level_embedding="mlp", num_levels=600))
    network.save_pretrained(tmp_path)
    loaded = AnchoredUNet.from_pretrained(tmp_path)
    inputs = conditions().inputs(None)
    assert torch.equal(loaded(*batch(), **inputs).sample, network(*batch(), **inputs).sample)
    for name in ("reference_channels", "anchor_injection", "anchor_pos", "level_embedding", "num_levels"):
        assert loaded.config[name] == network.config[name]


def test_the_configuration_shows_the_arguments_of_the_stock_unet_and_the_new_ones():
    config = AnchoredUNet.from_config(stock().config, adapter_res_blocks=1).config
    new = {"reference_channels", "adapter_res_blocks", "anchor_patch", "anchor_injection", "level_embedding"}
    assert new <= config.keys() and stock().config.keys() <= config.keys()
    assert config["reference_channels"] == 16 and config["adapter_res_blocks"] == 1
    assert config["cross_attention_dim"] == 16


@torch.no_grad()
def test_a_stock_pipeline_can_call_it_as_its_unet(batch):
    options = {"timestep_cond": None, "cross_attention_kwargs": None, "added_cond_kwargs": None, "return_dict": False}
    sample, timestep, text = batch()
    grown = AnchoredUNet.from_unet(stock())
    assert torch.equal(
        grown(sample, timestep, encoder_hidden_states=text, **options)[0],
        stock()(sample, timestep, encoder_hidden_states=text, **options)[0],
    )


@torch.no_grad()
def test_attention_processors_can_be_replaced(batch, conditions):
    network = shake(build())
    inputs = conditions().inputs(None)
    expected = network(*batch(), **inputs).sample
    assert len(network.attn_processors) == 4 * 7  # two attentions in each of two blocks at seven positions
    network.set_attn_processor({name: AttnProcessor() for name in network.attn_processors})
    torch.testing.assert_close(network(*batch(), **inputs).sample, expected)


@torch.no_grad()
def test_ip_adapter_weights_for_the_stock_unet_work_and_leave_the_anchor_alone(batch, conditions):
    base = stock()
    weights, key = {}, 1
    for name, module in base.named_modules():
        if name.endswith("attn2"):
            for part in ("k", "v"):
                weights[f"{key}.to_{part}_ip.weight"] = draw(*getattr(module, f"to_{part}").weight.shape, seed=key)
            key += 2
    image = {"proj.weight": draw(4 * 16, 12), "proj.bias": draw(64), "norm.weight": draw(16), "norm.bias": draw(16)}
    grown = AnchoredUNet.from_unet(base)
    outputs = []
    for unet in (base, grown):
        unet._load_ip_adapter_weights([{"ip_adapter": weights, "image_proj": image}])
        outputs.append(unet(*batch(), added_cond_kwargs={"image_embeds": [draw(2, 1, 12, seed=9)]}).sample)
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], stock()(*batch()).sample)


@torch.no_grad()
def test_lora_weights_attach_and_detach(batch):
    peft = pytest.importorskip("peft")
    network = build()
    expected = network(*batch()).sample
    network.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert not torch.equal(network(*batch()).sample, expected)
    network.disable_adapters()
    assert torch.equal(network(*batch()).sample, expected)


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_without_a_graph_break(batch, conditions):
    network = shake(build(**ONE_LEVEL))
    inputs = conditions().encoded_by(network)
    inputs = inputs.inputs(inputs.unet_encoded)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch(), **inputs).sample, network(*batch(), **inputs).sample)


@torch.no_grad()
@pytest.mark.parametrize("level_embedding", ["table", "mlp", "shared"])
def test_half_precision_stays_half_precision(level_embedding, batch, conditions):
    network = AnchoredUNet.from_unet(stock().to(torch.bfloat16), level_embedding=level_embedding)
    assert network.dtype == torch.bfloat16
    inputs = {k: v if v.dtype == torch.long else v.bfloat16() for k, v in conditions().inputs(None).items()}
    sample, timestep, text = batch()
    assert network(sample.bfloat16(), timestep, text.bfloat16(), **inputs).sample.dtype == torch.bfloat16


def test_bad_options_are_named():
    for name in ("anchor_injection", "anchor_pos", "level_embedding"):
        with pytest.raises(ValueError, match=f"{name} must be one of .*; got 'other'"):
            build(**{name: "other"})
    with pytest.raises(ValueError, match="anchor_patch must be at least 1"):
        build(anchor_patch=0)
    with pytest.raises(ValueError, match="width divisible by 4; got 18"):
        build(in_channels=2, anchor_patch=3, anchor_pos="sincos")
    with pytest.raises(ValueError, match="class embedding for the noise level"):
        build(num_class_embeds=1000)
    with pytest.raises(ValueError, match="AnchoredUNet takes CrossAttnDownBlock2D"):
        build(down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"))


def test_bad_conditions_are_named(batch, conditions):
    network, given = build(), conditions()
    features, tokens = network.encode_references(given.references), network.encode_anchor(given.anchor)
    with pytest.raises(ValueError, match=r"references must be \(B, 16, H, W\).* got \(2, 8, 8, 8\)"):
        network(*batch(), references=given.anchor)
    with pytest.raises(ValueError, match=r"anchor must be \(B, 8, H, W\); got \(2, 16, 8, 8\)"):
        network(*batch(), anchor=given.references)
    with pytest.raises(ValueError, match="references or reference_features"):
        network(*batch(), references=given.references, reference_features=features)
    with pytest.raises(ValueError, match="anchor or anchor_tokens"):
        network(*batch(), anchor=given.anchor, anchor_tokens=tokens)
    with pytest.raises(ValueError, match="expected 2 reference features; got 1"):
        network(*batch(), reference_features=features[:1])
