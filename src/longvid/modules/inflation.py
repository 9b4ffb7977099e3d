"""From an image UNet to a video UNet that makes every frame as the image UNet does, until it is trained."""

from __future__ import annotations

from typing import Any, cast

from diffusers import UNet2DConditionModel
from torch import nn

from .unet import VideoUNet

_SAME = (
    "sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "downsample_padding",
    "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps", "cross_attention_dim",
)  # fmt: skip
_BLOCKS = {
    "CrossAttnDownBlock2D": "CrossAttnDownBlock3D",
    "DownBlock2D": "DownBlock3D",
    "CrossAttnUpBlock2D": "CrossAttnUpBlock3D",
    "UpBlock2D": "UpBlock3D",
}


def inflated(unet: UNet2DConditionModel) -> VideoUNet:
    r"""Build a video UNet around an image UNet: temporal layers behind every spatial one, their last projection at zero.

    .. math:: \hat y(x)_f = \hat y_{2D}(x_f) \quad \text{for every frame } f, \text{ before training}

    The spatial weights are copied under the same names; the temporal convolutions and transformers are new and random
    but for their zero projections. The video UNet has the dtype and device of the image UNet.

    Shapes:
        An image UNet (B, C, H, W) -> a video UNet (B, C, F, H, W).

    Raises:
        ValueError: if the image UNet has something that a video UNet of ModelScope's layout lacks: blocks of another
            kind, convolutional projections in its transformers, class or added embeddings, or attention heads of
            several widths.

    Source: how the ModelScope model was made from Stable Diffusion (arXiv:2308.06571, Sec. 3).
    """
    model, weights = VideoUNet(**video_config(unet)), unet.state_dict()
    if foreign := sorted(weights.keys() - model.state_dict().keys()):
        raise ValueError(f"a video UNet has no place for {len(foreign)} weights of this UNet, first {foreign[0]}")
    model.load_state_dict(weights, strict=False)
    for name, module in model.named_modules():
        if name.endswith(".proj_out") and _is_temporal(name):
            nn.init.zeros_(cast(Any, module).weight)
            nn.init.zeros_(cast(Any, module).bias)
    nn.Module.to(model, device=unet.device, dtype=unet.dtype)  # diffusers' own `to` warns of a cast
    return model.train(unet.training)


def video_config(unet: UNet2DConditionModel) -> dict[str, Any]:
    """Arguments of `VideoUNet` for one that can hold the weights of an image UNet.

    Raises:
        ValueError: as `inflated`.
    """
    config = cast(dict[str, Any], unet.config)
    widths = config["block_out_channels"]
    blocks = {name: config[name] for name in ("down_block_types", "up_block_types")}
    if unknown := sorted({kind for kinds in blocks.values() for kind in kinds} - set(_BLOCKS)):
        raise ValueError(f"expected blocks of {', '.join(_BLOCKS)}; got {', '.join(unknown)}")
    if not config["use_linear_projection"]:
        raise ValueError("a video UNet projects with linear layers: expected use_linear_projection=True; got False")
    heads = config["num_attention_heads"] or config["attention_head_dim"]
    heads = (heads,) * len(widths) if isinstance(heads, int) else tuple(heads)
    head_dims = {width // count for width, count in zip(widths, heads, strict=True)}
    if len(head_dims) != 1:
        raise ValueError(f"expected attention heads of one width; got {', '.join(map(str, sorted(head_dims)))}")
    return {
        **{name: config[name] for name in _SAME},
        **{name: tuple(_BLOCKS[kind] for kind in kinds) for name, kinds in blocks.items()},
        "attention_head_dim": head_dims.pop(),
    }


def _is_temporal(name: str) -> bool:
    return "temp_attentions" in name or name.startswith("transformer_in")
