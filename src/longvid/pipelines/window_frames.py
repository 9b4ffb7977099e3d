"""The finished frames of a window, as latents and as pixels."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from longvid.video.codec import decode_video, encode_video


class WindowFrames:
    """The new frames of one window: given as latents or as pixels, the other computed once, when first asked for.

    Args:
        vae: Goes from the one to the other.
        latents: Scaled latents, (B, c, F, h, w).
        pixels: Pixels in [-1, 1], (B, 3, F, H, W).

    Raises:
        ValueError: unless exactly one of the two is given.
    """

    def __init__(self, vae: Any, *, latents: Tensor | None = None, pixels: Tensor | None = None) -> None:
        if (latents is None) == (pixels is None):
            raise ValueError("expected either latents or pixels of a window's frames; got both or neither")
        self._vae, self._latents, self._pixels = vae, latents, pixels

    @functools.cached_property
    def latents(self) -> Tensor:
        """Scaled latents, (B, c, F, h, w)."""
        return encode_video(self._vae, self._pixels) if self._latents is None else self._latents  # type: ignore[arg-type]

    @functools.cached_property
    def pixels(self) -> Tensor:
        """Pixels around [-1, 1], not clamped, (B, 3, F, H, W)."""
        return decode_video(self._vae, self._latents) if self._pixels is None else self._pixels  # type: ignore[arg-type]
