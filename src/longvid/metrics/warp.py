"""Frames moved along a flow: read backwards with an occlusion test, or thrown forwards pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

_RELATIVE, _ABSOLUTE = 0.01, 0.5  # of the occlusion test


def pixel_grid(height: int, width: int) -> Tensor:
    """The place of every pixel, ``(2, H, W)``: x, then y."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).float()


def magnitude(flow: Tensor) -> Tensor:
    """Length of every vector of a flow, (2, H, W) -> (H, W)."""
    return torch.hypot(flow[0], flow[1])  # ten times as fast as a norm over so short an axis


def warp_backward(image: Tensor, flow: Tensor) -> Tensor:
    """Read `image` where `flow` points: ``image(p + flow(p))``, bilinear; outside, its edge continues.

    Shapes:
        image (C, H, W), flow (2, H, W) in pixels -> (C, H, W).
    """
    height, width = image.shape[-2:]
    x, y = pixel_grid(height, width) + flow
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return grid_sample(image[None], grid[None], padding_mode="border", align_corners=False)[0]


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    r"""Which pixels of the first frame can be seen in the second.

    A pixel is occluded if it leaves the frame, or if the way there and back does not lead home:

    .. math:: |w + \hat w|^2 > 0.01\,(|w|^2 + |\hat w|^2) + 0.5, \qquad \hat w(p) = w_{back}(p + w(p))

    Shapes:
        forward and backward flow (2, H, W) in pixels -> bool (H, W).

    Source: Sundaram, Brox and Keutzer (ECCV 2010), as Lai et al. (ECCV 2018) use it for the warp error.
    """
    height, width = forward.shape[-2:]
    x, y = pixel_grid(height, width) + forward
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = warp_backward(backward, forward)
    allowed = _RELATIVE * (forward.square().sum(0) + back.square().sum(0)) + _ABSOLUTE
    return inside & ((forward + back).square().sum(0) <= allowed)


def splat(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Throw every pixel of `image` to the pixel nearest to where `flow` sends it.

    Pixels that leave the frame are lost. Where two land on one place, the later in row-major order stays. Halves are
    rounded to the even neighbour.

    Returns:
        The image, 0 where nothing landed, and where something landed.

    Shapes:
        image (C, H, W), flow (2, H, W) in pixels -> (C, H, W), bool (H, W).

    Source: `warp_with_flow` of StreamingT2V's released ``mawe.py``.
    """
    height, width = image.shape[-2:]
    x, y = (pixel_grid(height, width) + flow).round().long()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    landed = np.full(height * width, -1)
    source = np.flatnonzero(inside.numpy())
    landed[(y * width + x)[inside].numpy()] = source  # NumPy promises that the last of several writers stays
    owner = torch.from_numpy(landed)
    known = owner >= 0
    warped = image.flatten(1)[:, owner.clamp(min=0)] * known
    return warped.view_as(image), known.view(height, width)
