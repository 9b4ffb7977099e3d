"""What a pipeline call returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers.utils import BaseOutput
from einops import rearrange
from torch import Tensor


@dataclass
class LongVideoPipelineOutput(BaseOutput):
    """The videos of one call.

    Attributes:
        frames: `frames[0]` is the first video. "np" is an array (B, F, H, W, C) and "pt" a tensor (B, F, C, H, W), both
            in [0, 1]; "pil" is a list of lists of images; "latent" is a tensor (B, C, F, h, w).
        masks: Where a method predicts masks and they were asked for: (B, S, F, h, w) in [0, 1], one mask at latent
            size for each of the S model evaluations of every frame, in sampling order.
    """

    frames: np.ndarray | Tensor | list[list[Any]]
    masks: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EnhancedChunk:
    """Decoded frames of an enhanced video.

    Attributes:
        frames: `(B, 3, F, H, W)` in [0, 1]; latents `(B, c, F, h, w)` when latents were asked for.
        start: Number of the first of these frames in the whole video.
    """

    frames: Tensor
    start: int

    @property
    def num_frames(self) -> int:
        """F, the number of frames."""
        return self.frames.shape[2]


def package(frames: Tensor, output_type: str) -> np.ndarray | Tensor | list[list[Any]]:
    """Turn collected frames into what the user asked for.

    Shapes:
        (B, C, F, H, W), in [0, 1] unless the type is "latent" -> see `LongVideoPipelineOutput.frames`.
    """
    if output_type == "latent":
        return frames
    if output_type == "pt":
        return rearrange(frames, "b c f h w -> b f c h w")
    array = rearrange(frames, "b c f h w -> b f h w c").float().cpu().numpy()
    if output_type == "np":
        return array
    from PIL import Image

    pixels = (array * 255).round().astype(np.uint8)
    return [[Image.fromarray(frame) for frame in video] for video in pixels]
