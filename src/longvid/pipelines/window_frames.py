"""The finished frames of a window, as latents and as pixels."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from longvid.video.codec import decode_video, encode_video
from longvid.video.host_memory import HostMemory

_BATCH = 8


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
        return shown(self.pixels)


class HostFrames(WindowFrames):
    """Frames of a whole video, whose latents and pixels lie on the host; a few of them are decoded at once.

    Args:
        vae: The VAE.
        latents: Scaled latents on the CPU, (B, c, F, h, w).
        memory: Gives the tensor for the pixels.
        device: Where the VAE is.
    """

    def __init__(self, vae: Any, *, latents: Tensor, memory: HostMemory, device: Any) -> None:
        super().__init__(vae, latents=latents)
        self._memory, self._device = memory, device

    @functools.cached_property
    def shown(self) -> Tensor:  # type: ignore[override]
        """Pixels in [0, 1], (B, 3, F, H, W), on the CPU."""
        whole, first = None, 0
        for part in self.latents.split(_BATCH, dim=2):
            pixels = shown(decode_video(self._vae, part.to(self._device), frames_per_batch=_BATCH))
            if whole is None:
                shape = (*pixels.shape[:2], self.latents.shape[2], *pixels.shape[3:])
                whole = self._memory.empty(shape, pixels.dtype)
            whole[:, :, first : first + part.shape[2]] = pixels
            first += part.shape[2]
        assert whole is not None  # there is at least one frame
        return whole


def shown(pixels: Tensor) -> Tensor:
    """Pixels around [-1, 1] as they are handed out, in [0, 1]."""
    return (pixels / 2 + 0.5).clamp(0, 1)
