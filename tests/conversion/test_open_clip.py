"""OpenCLIP's image encoder under transformers' names computes OpenCLIP's numbers."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from longvid.conversion import convert_vision_weights
from streaming_t2v_numbers import assert_near, below, description, tensors


@torch.no_grad()
def test_official_numbers():
    numbers = tensors("ix_openclip_vision")
    weights = convert_vision_weights(below("image_encoder.model.visual.", numbers))
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**description("ix_openclip_vision")["config"])).eval()
    model.load_state_dict(weights)
    assert_near(model(numbers["input.pixel_values"]).image_embeds, numbers["expected.image_embeds"])


@pytest.mark.parametrize(
    "key", ["logit_scale", "transformer.resblocks.0.attn.q", "transformer.resblocks.0.mlp.gelu.weight"]
)
def test_a_key_of_something_else_is_an_error(key):
    with pytest.raises(ValueError, match=f"OpenCLIP vision transformer; got the key '{key}'"):
        convert_vision_weights({key: torch.zeros(1)})
