"""The finished frames of a window, as latents and as pixels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
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

    @property
    def shown(self) -> Tensor:
        """Pixels in [0, 1], (B, 3, F, H, W)."""
        return (self.pixels / 2 + 0.5).clamp(0, 1)

    def parts(self) -> Iterator[WindowFrames]:
        """The frames as they are handed out, in order: here all at once."""
        yield self


class HostFrames(WindowFrames):
    """Frames of a whole video, whose latents lie on the host; they are decoded when they are handed out, in parts.

    Args:
        vae: The VAE.
        latents: Scaled latents on the CPU, (B, c, F, h, w).
        device: Where the VAE is.
        frames_per_part: Frames that are handed out at once.
    """

    def __init__(self, vae: Any, *, latents: Tensor, device: Any, frames_per_part: int) -> None:
        super().__init__(vae, latents=latents)
        self._device, self._frames_per_part = device, frames_per_part

    @functools.cached_property
    def pixels(self) -> Tensor:
        """Pixels around [-1, 1], not clamped, (B, 3, F, H, W), on the CPU."""
        return decode_video(self._vae, self.latents.to(self._device)).cpu()

    def parts(self) -> Iterator[WindowFrames]:
        """The frames of a part at a time, whose pixels are gone with it."""
        options: dict[str, Any] = {"device": self._device, "frames_per_part": self._frames_per_part}
        for part in self.latents.split(self._frames_per_part, dim=2):
            yield HostFrames(self._vae, latents=part, **options)
