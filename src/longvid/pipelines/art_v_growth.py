"""From a Stable Diffusion model to an untrained ART-V model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline

from longvid.modules.anchored_unet import AnchoredUNet
from longvid.modules.masked_diffusion import PREDICTION_TYPES
from longvid.pipelines.image_model import image_parts
from longvid.samplers.dpmpp_2s_ancestral import DPMPP2SAncestralScheduler
from longvid.samplers.noise_schedule import noise_schedule

_SHARED_SHAPE = (
    "sample_size", "in_channels", "layers_per_block", "cross_attention_dim", "use_linear_projection",
    "down_block_types", "mid_block_type", "up_block_types", "norm_num_groups", "only_cross_attention", "act_fn",
)  # fmt: skip
_MASK_SHARE = 5  # the paper's mask network is a fifth as wide as its UNet, with 32 channels per attention head
_HEAD_WIDTH = 32


def grow(
    base: str | os.PathLike | DiffusionPipeline,
    *,
    mask_network: AnchoredUNet | Literal["new"] | None = "new",
    unet_options: Mapping[str, Any] | None = None,
    mask_options: Mapping[str, Any] | None = None,
    load_options: Mapping[str, Any] | None = None,
    **constants: Any,
) -> dict[str, Any]:
    """Give the components of an ART-V model grown from a Stable Diffusion model.

    The UNet computes what the base computes, until it is trained: the anchor blocks, the level embedding and the
    adapter start at the identity. The mask network is new and random. From Stable Diffusion 2.1 base this is the
    paper's model, 1,167,668,804 and 51,178,113 parameters.

    Args:
        base: A pipeline with `vae`, `text_encoder`, `tokenizer`, `unet` and `scheduler`, whose components are shared,
            except the UNet, which is copied; or the folder, hub id or bundled name of one.
            It may predict epsilon or velocity.
        mask_network: "new" builds one; None leaves it out (the paper's baseline); or one of your own.
        unet_options: Arguments of `AnchoredUNet` for the new parts of the UNet.
        mask_options: Arguments of `AnchoredUNet` for a new mask network, such as `mask_bias_init=-3.0`. By default its
            layers are a fifth as wide as the UNet's, and no narrower than 32.
        load_options: Arguments of `from_pretrained`, such as `dtype` or `variant`, if `base` is a name.
        constants: Arguments of `ARTVPipeline`, such as `static_noise` or another `scheduler`.

    Raises:
        ValueError: if the base predicts something else, or its UNet cannot be grown.
    """
    parts = image_parts(base, load_options)
    unet, scheduler = parts["unet"], parts["scheduler"]
    predicts = scheduler.config.get("prediction_type", "epsilon")
    if predicts not in PREDICTION_TYPES:
        raise ValueError(
            f"expected a base that predicts {' or '.join(PREDICTION_TYPES)}; got one that predicts {predicts}"
        )
    if mask_network == "new":
        config = {**mask_config(unet.config), **(mask_options or {})}
        mask_network = AnchoredUNet(**config).eval()
        torch.nn.Module.to(mask_network, device=unet.device, dtype=unet.dtype)  # diffusers' own `to` warns of a cast
    return {
        "vae": parts["vae"],
        "text_encoder": parts["text_encoder"],
        "tokenizer": parts["tokenizer"],
        "scheduler": DPMPP2SAncestralScheduler(**noise_schedule(scheduler)),
        "unet": AnchoredUNet.from_unet(unet, **(unet_options or {})),
        "mask_network": mask_network,
        "prediction_type": predicts,
        **constants,
    }


def mask_config(unet: Mapping[str, Any]) -> dict[str, Any]:
    """Give the configuration of a mask network for a UNet: a fifth as wide, one output channel, paper Table 2."""
    shape = {name: unet[name] for name in _SHARED_SHAPE if name in unet}
    step = max(_HEAD_WIDTH, unet["norm_num_groups"] or 1)
    widths = tuple(max(step, width // _MASK_SHARE // step * step) for width in unet["block_out_channels"])
    return {
        **shape,
        "out_channels": 1,
        "block_out_channels": widths,
        "attention_head_dim": tuple(width // _HEAD_WIDTH for width in widths),
    }
