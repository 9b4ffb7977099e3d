"""Laws of APM: closed gates at first, one context per layer, what the anchor changes, diffusers' contracts."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from networks import draw, shake, video_batch, video_unet

from longvid.modules import AppearancePreservationModule

SIZES = {"image_embed_dim": 12, "inner_dim": 20, "num_text_tokens": 5, "num_image_tokens": 3}
IMAGE = draw(2, 12, seed=4)


def module(unet=None, **options) -> AppearancePreservationModule:
    torch.manual_seed(3)
    return AppearancePreservationModule.from_unet(unet or video_unet(), **(SIZES | options))


@torch.no_grad()
def test_freshly_built_every_context_is_the_text_and_the_unet_is_left_alone_bit_for_bit():
    unet = video_unet()
    sample, timestep, text = video_batch()
    contexts = module(unet)(text, IMAGE)
    assert len(contexts) == unet.num_text_layers
    assert all(torch.equal(context, text) for context in contexts)
    assert torch.equal(unet(sample, timestep, contexts).sample, unet(sample, timestep, text).sample)


@torch.no_grad()
def test_once_trained_the_anchor_changes_every_context_and_the_output():
    unet, apm = video_unet(), shake(module())
    sample, timestep, text = video_batch()
    contexts, others = apm(text, IMAGE), apm(text, IMAGE.flip(0))
    assert not any(torch.allclose(a, b) for a, b in zip(contexts, others, strict=True))
    assert not torch.allclose(contexts[0], contexts[1])
    assert not torch.allclose(unet(sample, timestep, contexts).sample, unet(sample, timestep, others).sample)


@torch.no_grad()
def test_half_of_a_small_gate_opens_by_the_slope_of_silu():
    apm = module()
    text = video_batch()[2]
    apm.mixers[0].alpha.fill_(1e-3)
    tokens = torch.cat([text, apm.encode_anchor(IMAGE)], dim=1)
    mixed = apm.mixers[0].norm(apm.mixers[0].conv(tokens))
    torch.testing.assert_close(apm(text, IMAGE)[0] - text, 0.5e-3 * mixed, atol=1e-5, rtol=0)


@torch.no_grad()
def test_any_attention_processor_reads_the_contexts():
    unet, apm = video_unet(), shake(module())
    sample, timestep, text = video_batch()
    contexts = apm(text, IMAGE)
    expected = unet(sample, timestep, contexts).sample
    unet.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(unet(sample, timestep, contexts).sample, expected, atol=1e-5, rtol=1e-5)
    unet.set_attention_slice("max")
    torch.testing.assert_close(unet(sample, timestep, contexts).sample, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_texts_per_frame_are_mixed_one_by_one_and_anchors_are_averaged():
    apm = shake(module())
    texts = draw(2, 4, 5, 16, seed=5)
    contexts = apm(texts, IMAGE)
    for frame in range(4):
        alone = apm(texts[:, frame], IMAGE)
        for context, expected in zip(contexts, alone, strict=True):
            torch.testing.assert_close(context[:, frame], expected)
    several = torch.stack([IMAGE - 1, IMAGE + 1], dim=1)
    torch.testing.assert_close(apm.encode_anchor(several), apm.encode_anchor(IMAGE))


def test_gradients_open_the_gates_first():
    unet, apm = video_unet().requires_grad_(False), module().train()
    sample, timestep, text = video_batch()
    unet(sample, timestep, apm(text, IMAGE)).sample.square().mean().backward()
    assert all(mixer.alpha.grad.abs() > 0 for mixer in apm.mixers)
    assert all(mixer.conv.weight.grad.abs().sum() == 0 for mixer in apm.mixers)


@torch.no_grad()
def test_saving_and_loading_keeps_configuration_and_output(tmp_path):
    apm = shake(module())
    apm.save_pretrained(tmp_path)
    loaded = AppearancePreservationModule.from_pretrained(tmp_path)
    text = video_batch()[2]
    assert loaded.config["num_layers"] == 4 and loaded.config["num_text_tokens"] == 5
    assert all(torch.equal(a, b) for a, b in zip(loaded(text, IMAGE), apm(text, IMAGE), strict=True))


def test_wrong_inputs_are_named():
    apm, text = module(), video_batch()[2]
    with pytest.raises(ValueError, match=r"text must be \(B, 5, 16\) or \(B, F, 5, 16\); got \(2, 4, 16\)"):
        apm(text[:, :4], IMAGE)
    with pytest.raises(ValueError, match=r"image_embeds must be \(B, 12\) or \(B, A, 12\); got \(2, 11\)"):
        apm(text, IMAGE[:, :11])
    with pytest.raises(ValueError, match="as many images as texts, 2; got 1"):
        apm(text, IMAGE[:1])
