"""What HARIVO trains, built around an image model that stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from diffusers import MotionAdapter, UNet2DConditionModel

from longvid.modules import FrameTokenGenerator, MappingNetwork, motion_unet, new_motion_adapter


@dataclass
class NetworkOptions:
    """What is built around the image model; every choice that the paper leaves open is here.

    Attributes:
        mapping_network: Whether there is one.
        mapping_channels: Width of its layers; None works on the latents' own channels.
        mapping_layers: Its layers.
        mapping_conv: "temporal" (the paper's pseudo-code) or "3d" (its text).
        tokens_per_frame: Frame-wise tokens of every frame; 0 makes no generator.
        zero_tokens: Whether all frame tokens are zero at first.
        motion_adapter: Trained temporal layers to start from, a folder or hub id in AnimateDiff's format; None: new ones.
        motion_heads: Heads of new temporal layers.
        motion_mid_block: Whether the middle block gets a new temporal layer too.
        motion_max_frames: Frames that the positions of new temporal layers reach.
    """

    mapping_network: bool = True
    mapping_channels: int | None = None
    mapping_layers: int = 1
    mapping_conv: str = "temporal"
    tokens_per_frame: int = 3
    zero_tokens: bool = False
    motion_adapter: str | None = None
    motion_heads: int = 8
    motion_mid_block: bool = False
    motion_max_frames: int = 32


class HARIVONetworks(NamedTuple):
    """The denoiser: what the paper trains, around an image UNet that stays as it is."""

    unet: Any  # UNetMotionModel
    mapping_network: MappingNetwork | None
    frame_tokens: FrameTokenGenerator | None


def build_networks(
    options: NetworkOptions, unet: UNet2DConditionModel, num_frames: int, num_text_tokens: int
) -> HARIVONetworks:
    """Build new networks around a copy of an image UNet; only what is new is left trainable."""
    if options.motion_adapter is None:
        adapter = new_motion_adapter(
            unet,
            num_heads=options.motion_heads,
            max_num_frames=options.motion_max_frames,
            mid_block=options.motion_mid_block,
        )
    else:
        adapter = MotionAdapter.from_pretrained(options.motion_adapter)
    motion = motion_unet(unet, adapter)
    motion.freeze_unet2d_params()
    mapping, tokens = None, None
    if options.mapping_network:
        mapping = MappingNetwork(
            unet.config["in_channels"],
            num_layers=options.mapping_layers,
            hidden_channels=options.mapping_channels,
            conv=options.mapping_conv,
        )
    if options.tokens_per_frame:
        tokens = FrameTokenGenerator(
            text_dim=unet.config["cross_attention_dim"],
            num_text_tokens=num_text_tokens,
            num_frames=num_frames,
            tokens_per_frame=options.tokens_per_frame,
            zero_init_last=options.zero_tokens,
        )
    return HARIVONetworks(motion, mapping, tokens)
