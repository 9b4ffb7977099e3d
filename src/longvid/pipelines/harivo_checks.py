"""Whether the parts of a HARIVO pipeline, and what is loaded into it, were made for each other."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils import convert_unet_state_dict_to_peft

from longvid.modules.frame_tokens import TOKEN_MODES

_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
_OPTIONS = {
    "frame_token_mode": (None, *TOKEN_MODES),
    "continuing_tokens": ("own", "empty"),
    "controlnet_input": ("mapped", "raw"),
    "controlnet_tokens": ("text", "frame"),
}


def check_parts(pipe: Any) -> None:
    """Check a pipeline's constants, and that its components fit each other.

    Raises:
        ValueError: naming what does not fit, and why.
    """
    constants, unet = pipe.config, pipe.unet.config
    for name, known in _OPTIONS.items():
        if constants[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}; got {constants[name]!r}")
    size, overlap, reach = constants["window_size"], constants["overlap"], unet["motion_max_seq_length"]
    if not 0 < size <= reach:
        raise ValueError(
            f"the temporal layers have positions for {reach} frames: expected a window_size from 1 to {reach}; got {size}"
        )
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be at least 0 and below window_size; got overlap={overlap}, window_size={size}")
    facts = {"vae": (pipe.vae.config["latent_channels"], "latent channels", unet["in_channels"])}
    if pipe.mapping_network is not None:
        facts["mapping_network"] = (pipe.mapping_network.config["in_channels"], "channels", unet["in_channels"])
    if pipe.frame_tokens is not None:
        tokens = pipe.frame_tokens.config
        facts["frame_tokens"] = (tokens["text_dim"], "text features", _text_width(unet))
        length = getattr(pipe.tokenizer, "model_max_length", tokens["num_text_tokens"])
        if length != tokens["num_text_tokens"]:
            raise ValueError(f"frame_tokens read {tokens['num_text_tokens']} text tokens; the tokenizer makes {length}")
        made = tokens["num_frames"]
        if constants["frame_token_mode"] == "slice" and size > made:
            raise ValueError(
                f"frame_tokens make tokens for {made} frames; a window of {size} cannot be a slice of them"
            )
    if pipe.controlnet is not None:
        facts["controlnet"] = (_text_width(pipe.controlnet.config), "text features", _text_width(unet))
    for part, (found, what, wanted) in facts.items():
        if found != wanted:
            raise ValueError(f"{part} was made for another base: it has {found} {what}, the UNet has {wanted}")


def check_embeds_length(pipe: Any, embeds: torch.Tensor | None) -> None:
    """Check that given embeddings have as many tokens as frame tokens are made from.

    Raises:
        ValueError: if they have another number.
    """
    if pipe.frame_tokens is None or embeds is None:
        return
    expected, found = pipe.frame_tokens.config["num_text_tokens"], embeds.shape[1]
    if found != expected:
        raise ValueError(f"frame_tokens read {expected} text tokens; prompt_embeds have {found}")


def check_lora(pipe: Any, lora: Any, options: dict[str, Any]) -> None:
    """Check that every layer of a LoRA exists in a pipeline's UNet, with the width that it was made for.

    Raises:
        ValueError: naming the layer and, by its width, the base it was made for.
    """
    known = {
        key: value for key, value in options.items() if key not in ("adapter_name", "hotswap", "low_cpu_mem_usage")
    }
    given = dict(lora) if isinstance(lora, dict) else lora
    state = pipe.lora_state_dict(given, **known)[0]
    prefix = f"{pipe.unet_name}."
    layers = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for key, down in convert_unet_state_dict_to_peft(layers).items():
        path, found, _ = key.partition(".lora_A")
        if found:
            _check_layer(pipe.unet, path, down)


def _check_layer(unet: torch.nn.Module, path: str, down: torch.Tensor) -> None:
    try:
        layer: Any = unet.get_submodule(path)
    except AttributeError:
        raise ValueError(f"this LoRA was made for another base: its layer {path} does not exist in this UNet") from None
    layer = getattr(layer, "base_layer", layer)
    wanted, found = layer.weight.shape[1], down.shape[1]
    if wanted != found:
        text = "attn2.to_k" in path or "attn2.to_v" in path
        family = f" ({_FAMILIES[found]})" if text and found in _FAMILIES else ""
        raise ValueError(
            f"this LoRA was made for another base{family}: its layer {path} takes {found} features, here it takes {wanted}"
        )


def _text_width(config: Any) -> int:
    width = config["cross_attention_dim"]
    return width if isinstance(width, int) else width[0]
