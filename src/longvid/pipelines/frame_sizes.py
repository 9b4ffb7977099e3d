"""The size of a given video, changed: scaled to what is wanted, padded to what a network takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from longvid.video.layout import fold_frames, unfold_frames


def wanted_size(size: tuple[int, int], height: int | None, width: int | None) -> tuple[int, int]:
    """Give height and width: as asked for; where one is None, it follows the proportions, to the nearest pixel.

    Args:
        size: Height and width of the video.
        height: Wanted height, or None.
        width: Wanted width, or None.
    """
    if height is None:
        height = size[0] if width is None else max(1, round(size[0] * width / size[1]))
        return height, size[1] if width is None else width
    return height, max(1, round(size[1] * height / size[0])) if width is None else width


def scaled(video: Tensor, height: int, width: int) -> Tensor:
    """Scale every frame bilinearly, as StreamingT2V's paper does; a video of that size passes unchanged.

    Shapes:
        (B, C, F, H, W) -> (B, C, F, height, width), within the range of the input.
    """
    if tuple(video.shape[-2:]) == (height, width):
        return video
    images = F.interpolate(fold_frames(video), (height, width), mode="bilinear", antialias=True, align_corners=False)
    return unfold_frames(images, video.shape[2])


def padded(video: Tensor, multiple: int) -> Tensor:
    """Repeat the lower and the right border until height and width are multiples.

    Shapes:
        (B, C, F, H, W) -> (B, C, F, H', W'), with `[..., :H, :W]` the video as it was.
    """
    below, right = (-size % multiple for size in video.shape[-2:])
    if not below and not right:
        return video
    return unfold_frames(F.pad(fold_frames(video), (0, right, 0, below), mode="replicate"), video.shape[2])
