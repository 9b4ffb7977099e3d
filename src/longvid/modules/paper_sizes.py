"""The networks of the ART-V paper as configurations, for `AnchoredUNet(**PAPER_UNET)` and the like.

Table 2 gives the shapes and 1167.69 M and 51.18 M parameters; these have 1,167,668,804 and 51,178,113. The anchor
blocks, their 16-wide tokens and the table of levels are a reconstruction that fits both counts and Table 3.
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
