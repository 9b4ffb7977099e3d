"""The networks of the papers as configurations, for `AnchoredUNet(**PAPER_UNET)` and the like.

ART-V: Table 2 gives the shapes and 1167.69 M and 51.18 M parameters; these have 1,167,668,804 and 51,178,113. The anchor
blocks, their 16-wide tokens and the table of levels are a reconstruction that fits both counts and Table 3.

HARIVO: Stable Diffusion 1.5 at 256 pixels with AnimateDiff's temporal layers, without one in the middle block. The paper
says "0.45 B" for what it adds; these add 419.5 M, and 450.6 M with the projection that is discarded after training.

StreamingT2V: names, shapes and counts are those of the released checkpoint. Its UNet is ModelScope's.
"""

from __future__ import annotations

from typing import Any

_SHARED: dict[str, Any] = {
    "sample_size": 40,  # 320 pixels
    "in_channels": 4,
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "reference_channels": 8,
    "anchor_patch": 2,
    "anchor_injection": "block",
    "level_embedding": "table",
}

PAPER_UNET: dict[str, Any] = {
    **_SHARED,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),  # number of heads, by diffusers' naming
}

PAPER_MASK_NETWORK: dict[str, Any] = {
    **_SHARED,
    "out_channels": 1,
    "block_out_channels": (64, 128, 256, 256),
    "attention_head_dim": (2, 4, 8, 8),
}

STREAMING_T2V_UNET: dict[str, Any] = {
    "sample_size": 32,  # 256 pixels
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
    "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": 64,
}

STREAMING_T2V_CAM: dict[str, Any] = {
    **STREAMING_T2V_UNET,
    "frame_encoder_widths": (32, 96, 256, 512),
    "merger_head_dim": 64,
}

STREAMING_T2V_APM: dict[str, Any] = {
    "num_layers": 16,
    "cross_attention_dim": 1024,
    "image_embed_dim": 1024,
    "inner_dim": 1280,
    "num_text_tokens": 77,
    "num_image_tokens": 16,
}

HARIVO_BASE_UNET: dict[str, Any] = {
    "sample_size": 32,  # 256 pixels
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # number of heads, by diffusers' naming
}

HARIVO_MOTION_ADAPTER: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "motion_layers_per_block": 2,
    "motion_num_attention_heads": 8,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": False,
}

HARIVO_MAPPING_NETWORK: dict[str, Any] = {"in_channels": 4, "num_heads": 8, "head_dim": 64}

HARIVO_FRAME_TOKENS: dict[str, Any] = {
    "text_dim": 768,
    "num_text_tokens": 77,
    "num_frames": 24,
    "tokens_per_frame": 3,
}
