"""Pictures for a ControlNet, on all frames of a video or on a few named ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longvid.pipelines.inputs import for_every_video, image_batch

_KINDS = (
    "a dictionary from frame numbers to images, a tensor (F, 3, H, W) or (B, 3, F, H, W), an array (F, H, W, 3), "
    "or a list of images"
)


class ControlFrames:
    """What a ControlNet is shown, frame by frame; `images` are the pictures as they came, by frame.

    Args:
        control: A dictionary from frame numbers to images (or to lists with one for each video), in which negative
            numbers count from the end; or a video with a picture for every frame.
        num_frames: Frames of the video.
        size: Height and width of the video; pictures of another size are scaled and cut at the centre.
        counts: Prompts, and videos in the batch.

    Raises:
        ValueError: if the pictures do not match the frames, or one is no image.
    """

    def __init__(self, control: Any, num_frames: float, size: tuple[int, int], counts: tuple[int, int]):
        self._size, self._counts = size, counts
        self.images = _by_frame(control, num_frames)
        for frame in self.images:  # refused before any work, and not kept: a video's pixels are large
            self._pixels(frame)

    def inside(self, start: int, stop: int) -> tuple[list[int], Tensor | None]:
        """Give the controlled frames of [start, stop), counted from `start`, and their pictures.

        Shapes:
            -> n numbers and (B, 3, n, H, W) in [0, 1], or no numbers and None.
        """
        frames = [frame for frame in range(start, stop) if frame in self.images]
        if not frames:
            return [], None
        return [frame - start for frame in frames], torch.stack([self._pixels(frame) for frame in frames], dim=2)

    def _pixels(self, frame: int) -> Tensor:
        pixels = image_batch(self.images[frame], *self._size, name=f"control of frame {frame}")
        return for_every_video(pixels / 2 + 0.5, *self._counts, f"control of frame {frame}")


def _by_frame(control: Any, num_frames: float) -> dict[int, Any]:
    if isinstance(control, Mapping):
        return {_frame_number(key, num_frames): image for key, image in control.items()}
    if isinstance(control, Tensor) and control.ndim == 5:
        control = list(control.unbind(2))
    elif isinstance(control, (Tensor, np.ndarray)) and control.ndim == 4:
        control = list(control)
    if not isinstance(control, (list, tuple)):
        shape = f" of shape {tuple(control.shape)}" if hasattr(control, "shape") else ""
        raise ValueError(f"control must be {_KINDS}; got {type(control).__name__}{shape}")
    if len(control) != num_frames:
        raise ValueError(
            f"control must have a picture for each of {num_frames} frames, or name its frames in a dictionary; "
            f"got {len(control)}"
        )
    return dict(enumerate(control))


def _frame_number(key: Any, num_frames: float) -> int:
    if not isinstance(key, int) or isinstance(key, bool):
        raise ValueError(f"control must name frames by whole numbers; got {key!r}")
    if not -num_frames <= key < num_frames or (key < 0 and num_frames == math.inf):
        raise ValueError(f"control names frame {key} of a video of {num_frames} frames")
    return key if key >= 0 else int(num_frames) + key
