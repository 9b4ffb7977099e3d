"""Pixels as the OpenCLIP image encoder of StreamingT2V was shown them in training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: Tensor, size: int = 224) -> Tensor:
    r"""Resize images to `size` x `size` and normalise them for CLIP.

    .. math:: y = \frac{(\mathrm{bicubic}(G_\sigma * x) + 1) / 2 - \mu}{s}, \qquad
        \sigma = \max\left(\tfrac{f - 1}{2}, 0.001\right)

    per side, where f is the factor by which the side shrinks; images that shrink on no side are not blurred. The grid
    is aligned to the corner pixels. This is what kornia's `resize(..., interpolation="bicubic", align_corners=True,
    antialias=True)` computes, not what CLIP's own image processor does.

    Args:
        images: Pixels in [-1, 1]; zeros, mid-grey, are the blank image.
        size: Side of the result.

    Shapes:
        (B, 3, H, W) -> (B, 3, size, size).

    Raises:
        ValueError: if `images` is not a floating-point (B, 3, H, W) tensor.

    Source: StreamingT2V's released code (its OpenCLIP embedder); the formula of the blur is kornia 0.7.2's.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images must be a floating-point tensor of shape (B, 3, H, W); got {images.dtype} {tuple(images.shape)}"
        )
    factors = [side / size for side in images.shape[-2:]]
    if max(factors) > 1:
        images = _blur(_blur(images, factors[0], axis=-2), factors[1], axis=-1)
    resized = interpolate(images, size=(size, size), mode="bicubic", align_corners=True)
    mean = torch.tensor(CLIP_MEAN, device=images.device, dtype=images.dtype).reshape(3, 1, 1)
    std = torch.tensor(CLIP_STD, device=images.device, dtype=images.dtype).reshape(3, 1, 1)
    return ((resized + 1) / 2 - mean) / std


def _blur(images: Tensor, factor: float, *, axis: int) -> Tensor:
    """Gaussian blur along one axis, mirrored at the border, before it shrinks by `factor`."""
    sigma = max((factor - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3)) | 1  # odd
    offsets = torch.arange(taps, device=images.device, dtype=torch.float32) - taps // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).to(images.dtype)
    border = taps // 2
    shape, padding = ((-1, 1), (0, 0, border, border)) if axis == -2 else ((1, -1), (border, border, 0, 0))
    kernel = weights.reshape(1, 1, *shape).expand(3, 1, -1, -1)
    return conv2d(pad(images, padding, mode="reflect"), kernel, groups=3)
