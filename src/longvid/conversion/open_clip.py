"""The image half of an OpenCLIP model as transformers' `CLIPVisionModelWithProjection`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # transformers spells it so
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


def convert_vision_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of OpenCLIP's `visual`, a vision transformer, for `CLIPVisionModelWithProjection`.

    The joint projection of queries, keys and values becomes three, and the last projection is transposed. The target
    needs `hidden_act="gelu"` for models, such as laion's ViT-H-14, that were trained with it.

    Args:
        state_dict: Weights without the prefix `visual.`.

    Raises:
        ValueError: if a key is none of a vision transformer's.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key == "proj":
            converted["visual_projection.weight"] = value.T.contiguous()
        elif key in _OUTSIDE:
            converted[f"vision_model.{_OUTSIDE[key]}"] = value
        else:
            converted |= _convert_layer(key, value)
    return converted


def _convert_layer(key: str, value: Tensor) -> dict[str, Tensor]:
    found = _LAYER.fullmatch(key)
    name, _, kind = found[2].rpartition(".") if found else ("", "", "")
    prefix = f"vision_model.encoder.layers.{found[1]}" if found else ""
    if found and found[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = found[2].removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{name}_proj.{kind}": part.clone() for name, part in parts}
    if name not in _IN_LAYER or kind not in ("weight", "bias"):
        raise ValueError(f"expected the weights of an OpenCLIP vision transformer; got the key {key!r}")
    return {f"{prefix}.{_IN_LAYER[name]}.{kind}": value}
