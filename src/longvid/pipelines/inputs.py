"""Images and videos as users hold them, turned into pixel tensors in [-1, 1]."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.video.io import read_video

_KINDS = "a PIL image, a uint8 or float array (H, W, 3), or a float tensor (3, H, W) in [0, 1]"


def image_batch(images: Any, height: int, width: int, *, name: str = "image") -> Tensor:
    """Turn one image or a batch of images into pixels of the wanted size.

    PIL images of any mode, arrays (H, W, 3) (uint8 0..255 or float 0..1), tensors (3, H, W) (uint8 0..255 or float
    0..1), lists of these, or one stacked batch (B, H, W, 3) / (B, 3, H, W). An image of another size is scaled until
    it covers the frame and cut at the centre, so its proportions stay.

    Shapes:
        one or B images -> (B, 3, height, width) in [-1, 1].

    Raises:
        ValueError: if the input is of another kind, has another number of channels, or leaves its range.
    """
    if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, (list, tuple)):
        images = [images]
    if not images:
        raise ValueError(f"{name} is empty; expected {_KINDS}")
    return torch.stack([fit(to_unit(image, name), height, width) for image in images]) * 2.0 - 1.0


def video_batch(video: Any, height: int, width: int, *, keep: Sequence[int]) -> tuple[Tensor, int]:
    """Read a video to be continued, and keep only the frames that will be used.

    Args:
        video: A tensor (F, 3, H, W), or a batch (B, 3, F, H, W); an array (F, H, W, 3) or (B, F, H, W, 3); or any
            iterable of images, such as a list of PIL images or ``read_video(path)``. It is read once, and only the
            kept frames stay in memory.
        height: Height of the result.
        width: Width of the result.
        keep: Frame numbers. Negative ones count from the end, and stop at the first frame of a shorter video.

    Returns:
        The kept frames (B, 3, len(keep), height, width) in [-1, 1], and how many frames the video has.

    Raises:
        ValueError: if the video is of another kind, is empty, or does not have a wanted frame.
    """
    clips, batched = _as_clips(video)
    frames, num_frames = _pick(clips, keep)
    rows = [image_batch(_unbatch(frame, batched), height, width, name="video") for frame in frames]
    return torch.stack(rows, dim=2), num_frames


def for_every_video(pixels: Tensor, num_prompts: int, batch_size: int, name: str) -> Tensor:
    """Repeat what is one for all videos, or one per prompt for the videos of that prompt, along the batch.

    Raises:
        ValueError: if there are neither one, nor as many as prompts, nor as many as videos.
    """
    given = pixels.shape[0]
    if given not in (1, num_prompts, batch_size):
        raise ValueError(f"expected one {name}, or one for each of {num_prompts} prompts; got {given}")
    return pixels.repeat_interleave(batch_size // given, dim=0)


@dataclass(eq=False)
class VideoInput:
    """A given video, or a batch of them, read once, frame by frame.

    Attributes:
        frames: Frames (B, 3, H, W) in [0, 1], float32.
        num_videos: B.
        num_frames: Frames of each video; None where only reading tells.
        height: H.
        width: W.
    """

    frames: Iterator[Tensor]
    num_videos: int
    num_frames: int | None
    height: int
    width: int


def open_video(video: Any) -> VideoInput:
    """Open a video, reading its first frame and no other.

    Args:
        video: What `video_batch` takes, or the path of a file or of a folder of PNGs.

    Raises:
        ValueError: if it is of another kind, empty, damaged, or its first frame is no image; while the frames are read,
            if one of them is no image or of another size.
    """
    if isinstance(video, (str, os.PathLike)):
        video = read_video(video)
    clips, batched = _as_clips(video)
    frames = _unit_frames(clips, batched)
    first = next(frames, None)
    if first is None:
        raise ValueError("video has no frames; expected at least one")
    if isinstance(video, (np.ndarray, Tensor)):
        num_frames = len(video) if not batched else video.shape[2 if isinstance(video, Tensor) else 1]
    else:
        num_frames = getattr(video, "num_frames", None) or (len(video) if hasattr(video, "__len__") else None)  # type: ignore[arg-type]
    return VideoInput(chain([first], frames), first.shape[0], num_frames, *first.shape[-2:])


def to_unit(image: Any, name: str = "image") -> Tensor:
    """Turn one image into a float tensor (3, H, W) in [0, 1].

    Raises:
        ValueError: if it is of another kind, has another number of channels, or leaves its range.
    """
    if hasattr(image, "convert"):  # PIL, without importing it
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    elif isinstance(image, np.ndarray):
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels
    elif isinstance(image, Tensor):
        pixels = image.detach()
    else:
        raise ValueError(f"{name} must be {_KINDS}; got {type(image).__name__}")
    if pixels.ndim != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
        raise ValueError(f"{name} must be {_KINDS}; got {type(image).__name__} of shape {tuple(image.shape)}")
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255.0
    if not pixels.is_floating_point():
        raise ValueError(f"{name} must be uint8 or floating point; got {pixels.dtype}")
    pixels = pixels.float()
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -1e-4 and high <= 1.0 + 1e-4):
        raise ValueError(f"{name} must lie in [0, 1]; got values from {low:.4g} to {high:.4g}")
    return pixels


def fit(image: Tensor, height: int, width: int) -> Tensor:
    """Scale an image (C, H, W) until it covers (height, width), then cut the centre; the same size passes unchanged."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    scale = max(height / image.shape[-2], width / image.shape[-1])
    size = (max(height, round(image.shape[-2] * scale)), max(width, round(image.shape[-1] * scale)))
    image = F.interpolate(image[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[:, top : top + height, left : left + width]


def _as_clips(video: Any) -> tuple[Iterable[Any], bool]:
    """Give an iterable over frames, and whether every item holds a batch of them."""
    kinds = "a (F, 3, H, W) or (B, 3, F, H, W) tensor, a (F, H, W, 3) or (B, F, H, W, 3) array, or a list of images"
    if isinstance(video, Tensor):
        if video.ndim == 5:
            return video.unbind(2), True
        if video.ndim == 4:
            return video.unbind(0), False
    elif isinstance(video, np.ndarray):
        if video.ndim == 5:
            return (video[:, index] for index in range(video.shape[1])), True
        if video.ndim == 4:
            return iter(video), False
    elif isinstance(video, Iterable) and not isinstance(video, (str, bytes, dict)):
        return video, False
    shape = f" of shape {tuple(video.shape)}" if hasattr(video, "shape") else ""
    raise ValueError(f"video must be {kinds}; got {type(video).__name__}{shape}")


def _unit_frames(clips: Iterable[Any], batched: bool) -> Iterator[Tensor]:
    size = None
    for index, clip in enumerate(clips):
        images = [to_unit(image, "video") for image in _unbatch(clip, batched)]
        size = size or images[0].shape[-2:]
        if images[0].shape[-2:] != size:
            found = "{} x {}, the first {} x {}".format(*images[0].shape[-2:], *size)
            raise ValueError(f"the frames of a video must have one size; frame {index} is {found}")
        yield torch.stack(images)


def _pick(frames: Iterable[Any], keep: Sequence[int]) -> tuple[list[Any], int]:
    tail_length = max([-index for index in keep if index < 0], default=0)
    wanted, tail, count = {}, [], 0
    for count, frame in enumerate(frames, start=1):  # noqa: B007 (the count is used after the loop)
        if count - 1 in keep:
            wanted[count - 1] = frame
        tail = [*tail, frame][-tail_length:] if tail_length else tail
    if count == 0:
        raise ValueError("video has no frames; expected at least one")
    picked = []
    for index in keep:
        if index >= count:
            raise ValueError(f"video has {count} frames; frame {index} was asked for")
        picked.append(wanted[index] if index >= 0 else tail[max(index, -len(tail))])
    return picked, count


def _unbatch(frame: Any, batched: bool) -> Any:
    return list(frame) if batched else [frame]
