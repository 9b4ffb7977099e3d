"""An image UNet with temporal layers in it (diffusers' UNetMotionModel), and the image UNet that is still inside."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from .attention import install_lean_attention

_BLOCKS = {
    "CrossAttnDownBlock2D": "CrossAttnDownBlockMotion",
    "DownBlock2D": "DownBlockMotion",
    "UpBlock2D": "UpBlockMotion",
    "CrossAttnUpBlock2D": "CrossAttnUpBlockMotion",
}
_IMAGE_BLOCKS = {motion: image for image, motion in _BLOCKS.items()}
_FAMILIES = {
    (320, 640, 1280, 1280): "Stable Diffusion 1.x and 2.x",
    (320, 640, 1280): "Stable Diffusion XL",
}
_WITHOUT_EFFECT = ("attention_head_dim", "upcast_attention", "dropout")


def motion_unet(unet: UNet2DConditionModel, motion_adapter: MotionAdapter | None = None) -> UNetMotionModel:
    """Put temporal layers into an image UNet, whose weights are copied; the image UNet itself is left as it is.

    Args:
        unet: The image UNet, such as that of Stable Diffusion 1.5.
        motion_adapter: Temporal layers: AnimateDiff's, or any in its format. None makes new ones whose outputs are
            zero, so that the result equals `unet` frame by frame; train them with everything else frozen
            (`freeze_unet2d_params`).

    Raises:
        ValueError: if the image UNet has a part that `UNetMotionModel` lacks, or the adapter was made for another one.

    Source: HARIVO, Sec. 3.1; AnimateDiff (arXiv:2307.04725).
    """
    _check_base(unet)
    if motion_adapter is None:
        motion_adapter = new_motion_adapter(unet)
    check_adapter(unet, motion_adapter)
    with _without_empty_warnings():
        model = cast(UNetMotionModel, UNetMotionModel.from_unet2d(unet, motion_adapter))
    install_lean_attention(model)
    return model.train(unet.training)


@contextmanager
def _without_empty_warnings() -> Iterator[None]:
    """Keep diffusers from warning that no modules (an empty list) should be kept in float32."""
    logger = logging.getLogger("diffusers.models.modeling_utils")

    def names_something(record: logging.LogRecord) -> bool:
        return "should be kept in float32: []" not in record.getMessage()

    logger.addFilter(names_something)
    try:
        yield
    finally:
        logger.removeFilter(names_something)


def new_motion_adapter(
    unet: UNet2DConditionModel,
    *,
    num_heads: int = 8,
    max_num_frames: int = 32,
    mid_block: bool = False,
) -> MotionAdapter:
    """Make temporal layers for an image UNet, whose outputs are zero at first.

    Args:
        unet: What they are for.
        num_heads: Heads of the temporal attention.
        max_num_frames: Frames that its positions reach.
        mid_block: Whether the middle block gets a layer too.
    """
    config = unet.config
    blocks = tuple(config["block_out_channels"])
    layers = config["layers_per_block"]
    adapter = MotionAdapter(
        block_out_channels=blocks,
        motion_layers_per_block=layers if isinstance(layers, int) else tuple(layers),
        motion_num_attention_heads=num_heads,
        motion_norm_num_groups=config["norm_num_groups"],
        motion_max_seq_length=max_num_frames,
        use_motion_mid_block=mid_block,
    )
    zero_motion_outputs(adapter)
    return adapter


def motion_adapter_of(unet: UNetMotionModel) -> MotionAdapter:
    """Take the temporal layers out of a motion UNet, as a copy in AnimateDiff's format.

    Raises:
        ValueError: if they hold more than their own weights, such as a LoRA.
    """
    config = unet.config
    adapter = MotionAdapter(
        block_out_channels=tuple(config["block_out_channels"]),
        motion_layers_per_block=config["layers_per_block"],
        motion_transformer_layers_per_block=config["temporal_transformer_layers_per_block"],
        motion_transformer_layers_per_mid_block=config["temporal_transformer_layers_per_mid_block"],
        motion_num_attention_heads=config["motion_num_attention_heads"],
        motion_norm_num_groups=config["norm_num_groups"],
        motion_max_seq_length=config["motion_max_seq_length"],
        use_motion_mid_block=config["use_motion_mid_block"],
    )
    weights = {name: tensor for name, tensor in unet.state_dict().items() if "motion_modules" in name}
    if weights.keys() != adapter.state_dict().keys():
        raise ValueError("the temporal layers hold a LoRA: unload_lora_weights first, or fuse_lora and unload it then")
    adapter.load_state_dict(weights)
    nn.Module.to(adapter, unet.device)  # diffusers' own `to` is not typed
    return adapter.train(unet.training)


def zero_motion_outputs(module: nn.Module) -> None:
    """Set the output layer of every temporal transformer in a module to zero: it then leaves its input as it is."""
    for layer in module.modules():
        if isinstance(layer, AnimateDiffTransformer3D):
            nn.init.zeros_(layer.proj_out.weight)
            nn.init.zeros_(layer.proj_out.bias)


def check_adapter(unet: UNet2DConditionModel, adapter: MotionAdapter) -> None:
    """Check that temporal layers fit an image UNet.

    Raises:
        ValueError: naming what the adapter was made for and what the UNet has.
    """
    ours, theirs = unet.config, adapter.config
    layers, count = ours["layers_per_block"], len(ours["block_out_channels"])
    facts = {
        "block_out_channels": (tuple(ours["block_out_channels"]), tuple(theirs["block_out_channels"])),
        "layers_per_block": (_per_block(layers, count), _per_block(theirs["motion_layers_per_block"], count)),
        "norm_num_groups": (ours["norm_num_groups"], theirs["motion_norm_num_groups"]),
    }
    for name, (wanted, found) in facts.items():
        if wanted != found:
            family = _FAMILIES.get(found, "") if name == "block_out_channels" else ""
            family = f" ({family})" if family else ""
            raise ValueError(
                f"the motion adapter was made for another base{family}: it has {name} {found}, this UNet has {wanted}"
            )
    if theirs["conv_in_channels"]:
        raise ValueError(
            f"expected a motion adapter of temporal layers alone; this one also replaces the input convolution, with "
            f"{theirs['conv_in_channels']} channels (PIA)"
        )


def image_view(unet: UNetMotionModel) -> UNet2DConditionModel:
    """See the image UNet inside a motion UNet: the same modules, without the temporal layers.

    Nothing is copied, so it costs no memory, follows every change of the weights, LoRA and attention processors
    included, and its `state_dict` is that of the image UNet which the motion UNet was made from. Gradients flow through it.

    Shapes:
        of a `UNet2DConditionModel`: sample (B * F, C, h, w), text (B * F, N, D).
    """
    with torch.device("meta"):
        view = UNet2DConditionModel(**_image_config(unet))
    _share(view, unet, ("conv_in", "time_proj", "time_embedding", "add_time_proj", "add_embedding", "encoder_hid_proj"))
    _share(view, unet, ("conv_norm_out", "conv_act", "conv_out"))
    pairs = zip([*view.down_blocks, *view.up_blocks], [*unet.down_blocks, *unet.up_blocks], strict=True)
    for mine, theirs in (*pairs, (view.mid_block, unet.mid_block)):
        _share(mine, theirs, ("resnets", "attentions", "downsamplers", "upsamplers"))
    view.register_to_config(encoder_hid_dim_type=unet.config.encoder_hid_dim_type)  # set as an attribute by adapters
    assert not any(parameter.is_meta for parameter in view.parameters())
    return view.train(unet.training)


def _share(view: Any, source: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(source, name):
            setattr(view, name, getattr(source, name))


def _image_config(unet: UNetMotionModel) -> dict[str, Any]:
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    config = {name: value for name, value in unet.config.items() if name in known}
    del config["encoder_hid_dim_type"]  # wants a dimension too; the projection itself is shared
    config["attention_head_dim"] = config.pop("num_attention_heads")  # number of heads, by diffusers' naming
    for name in ("down_block_types", "up_block_types"):
        config[name] = tuple(_IMAGE_BLOCKS[kind] for kind in config[name])
    return config


def _check_base(unet: UNet2DConditionModel) -> None:
    config = unet.config
    kinds = [*config["down_block_types"], *config["up_block_types"]]
    unknown = sorted(set(kinds) - set(_BLOCKS))
    if unknown:
        raise ValueError(f"expected a UNet of blocks {', '.join(_BLOCKS)}; got {', '.join(unknown)}")
    stock = inspect.signature(UNet2DConditionModel.__init__).parameters
    motion = inspect.signature(UNetMotionModel.__init__).parameters
    for name, parameter in stock.items():
        if name in motion or name in _WITHOUT_EFFECT or parameter.default is inspect.Parameter.empty:
            continue
        if config.get(name, parameter.default) != parameter.default:
            raise ValueError(
                f"temporal layers cannot be put into a UNet with {name}={config[name]!r}; "
                f"expected {parameter.default!r}"
            )


def _per_block(layers: Any, num_blocks: int) -> tuple[int, ...]:
    return (layers,) * num_blocks if isinstance(layers, int) else tuple(layers)
