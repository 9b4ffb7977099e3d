"""The modules of StreamingT2V have the numbers of the official classes (fixtures i to iv)."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor

from longvid.conversion import rename_checkpoint
from longvid.modules import AppearancePreservationModule, ConditionalAttentionModule, VideoUNet
from longvid.modules.frame_encoder import FrameEncoder
from longvid.modules.skip_merger import AttentionMerger
from longvid.samplers import guided
from longvid.video.layout import fold_frames
from streaming_t2v_numbers import assert_near, below, description, parts, tensors

LAYER = "base_model.mid_block.attentions.0.transformer_blocks.0."


@torch.no_grad()
def test_the_frame_encoder():
    numbers, config = tensors("i_econd"), description("i_econd")["config"]
    encoder = FrameEncoder(3, config["block_out_channels"], config["conditioning_embedding_channels"])
    encoder.load_state_dict(below("frame_encoder.", parts("i_econd")["cam"]))
    frames = numbers["input.frames"].transpose(0, 1)[None]
    assert_near(fold_frames(encoder(frames)), numbers["expected.features"])


@torch.no_grad()
@pytest.mark.parametrize("amplitude", ["", "_small"])
def test_the_merger(amplitude):
    numbers, config = tensors("ii_cam_merger"), description("ii_cam_merger")["config"]
    merger = AttentionMerger(config["input_channels"], config["attention_head_dim"], config["norm_num_groups"])
    merger.load_state_dict(below("mid_merger.", parts("ii_cam_merger")["cam"]))
    skip, features = (numbers[f"input.{name}"].flatten(0, 1) for name in (f"skip{amplitude}", "cam"))
    merged = merger(skip, features, num_frames=16).unflatten(0, (-1, 16))
    assert_near(merged, numbers[f"expected.merged{amplitude}"])


def appearance_module(numbers: dict[str, Tensor]) -> AppearancePreservationModule:
    layer = {LAYER + key: value for key, value in numbers.items() if key.startswith(("attn2.alpha", "attn2.conv"))}
    tokens = {key: value for key, value in numbers.items() if key.startswith("resampler.")}
    apm = AppearancePreservationModule(num_layers=1, cross_attention_dim=32, image_embed_dim=32, inner_dim=24)
    apm.load_state_dict(rename_checkpoint(layer | tokens)["apm"])
    return apm


@torch.no_grad()
def test_the_image_tokens_of_one_anchor_and_of_two():
    numbers = tensors("iii_apm")
    apm = appearance_module(numbers)
    assert_near(apm.encode_anchor(numbers["input.image_embeds"]), numbers["expected.image_tokens"])
    two = numbers["input.image_embeds_2frames"].unflatten(0, (2, 2))
    assert_near(apm.encode_anchor(two), numbers["expected.image_tokens_2frames"])


@torch.no_grad()
@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_the_context_of_a_layer_and_what_attention_makes_of_it(processor):
    numbers, config = tensors("iii_apm"), description("iii_apm")["config"]
    (context,) = appearance_module(numbers)(numbers["input.text_embeds"], numbers["input.image_embeds"])
    assert_near(context, numbers["expected.effective_context"])
    attention = Attention(
        query_dim=config["query_dim"],
        cross_attention_dim=config["cross_attention_dim"],
        heads=config["heads"],
        dim_head=config["dim_head"],
        processor=processor(),
    )
    stock = {key: value for key, value in numbers.items() if key.startswith("attn2.to_")}
    attention.load_state_dict(below("attn2.", stock))
    spread = context.repeat_interleave(config["num_frames"], dim=0)
    output = attention(numbers["input.hidden_states"], encoder_hidden_states=spread)
    assert_near(output, numbers["expected.attn_out"])


# Fixture iv: the whole network on both halves of classifier-free guidance.


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return tensors("iv_full_forward")


@pytest.fixture(scope="module")
def networks() -> tuple[VideoUNet, ConditionalAttentionModule]:
    config = description("iv_full_forward")["config"]
    weights = parts("iv_weights_base_model", "iv_weights_unet")
    unet = VideoUNet(**config["unet"]).eval()
    cam = ConditionalAttentionModule(
        **config["unet"],
        frame_encoder_widths=config["conditioning_embedding_out_channels"],
        merger_head_dim=config["merger_attention_head_dim"],
    ).eval()
    unet.load_state_dict(weights["unet"])
    cam.load_state_dict(weights["cam"])
    return unet, cam


@pytest.fixture(scope="module")
def contexts(networks, numbers) -> tuple[Tensor, ...]:
    """The fixture gives the image tokens, not the embedding they are made of."""
    unet, _ = networks
    apm = AppearancePreservationModule.from_unet(unet, image_embed_dim=1, inner_dim=1).eval()
    weights = below("mixers.", parts("iv_weights_base_model")["apm"])
    apm.mixers.load_state_dict(weights)
    text, image = numbers["input.text_embeds"], numbers["input.image_tokens"]
    with torch.no_grad():
        return tuple(mixer(text, torch.cat([text, image], dim=1)) for mixer in apm.mixers)


@pytest.fixture(scope="module")
def encoded(networks, numbers) -> Tensor:
    with torch.no_grad():
        return networks[1].encode_frames(numbers["input.cond_frames"].transpose(1, 2), num_frames=16)


@torch.no_grad()
@pytest.mark.parametrize(("timestep", "name"), [(481, "eps"), (21, "eps_t21")])
def test_both_halves_of_one_evaluation(timestep, name, networks, numbers, contexts, encoded):
    unet, cam = networks
    latents = numbers["input.latents"].expand(2, -1, -1, -1, -1)
    features = cam(latents, timestep, numbers["input.text_embeds"], encoded_frames=encoded)
    prediction = unet(latents, timestep, contexts, **cam.unet_options(features)).sample
    assert_near(prediction, numbers[f"expected.{name}"])


@torch.no_grad()
@pytest.mark.parametrize("batched", [True, False])
def test_the_guided_prediction_as_a_pipeline_makes_it(batched, networks, numbers, contexts, encoded):
    unet, cam = networks
    text = numbers["input.text_embeds"]

    def predict(sample, timestep, conditions):
        features = cam(sample, timestep, conditions["text"], encoded_frames=conditions["frames"])
        return unet(sample, timestep, conditions["contexts"], **cam.unet_options(features)).sample

    blank, full = (
        {"text": text[row], "contexts": [context[row] for context in contexts], "frames": encoded}
        for row in (slice(0, 1), slice(1, 2))
    )
    prediction = guided(predict, [full, blank], [6.5], batched=batched)(numbers["input.latents"], 481)
    assert_near(prediction, numbers["expected.eps_guided"])


@torch.no_grad()
def test_the_prediction_without_cam(networks, numbers, contexts):
    latents = numbers["input.latents"].expand(2, -1, -1, -1, -1)
    assert_near(networks[0](latents, 481, contexts).sample, numbers["expected.eps_without_cam"])


@torch.no_grad()
def test_the_features_and_the_merged_skips(networks, numbers, contexts, encoded):
    unet, cam = networks
    latents = numbers["input.latents"].expand(2, -1, -1, -1, -1)
    features = cam(latents, 481, numbers["input.text_embeds"], encoded_frames=encoded)
    assert_near(fold_frames(encoded.expand(2, -1, -1, -1, -1)), numbers["expected.econd"])
    for index, feature in enumerate(features[:-1]):
        assert_near(feature, numbers[f"expected.cam_down.{index}"])
    assert_near(features[-1], numbers["expected.cam_mid"])
    merge, merged = cam.unet_options(features)["skip_merger"], []

    def look(hidden, skips, num_frames):
        hidden, skips = merge(hidden, skips, num_frames)
        merged.extend(value.unflatten(0, (2, 16)) for value in (*skips, hidden))
        return hidden, skips

    unet(latents, 481, contexts, skip_merger=look)
    names = [f"down_{index}" for index in range(6)] + ["mid"]
    for value, name in zip(merged, names, strict=True):
        assert_near(value, numbers[f"expected.merged.{name}"])
