"""The one place that knows the layout of a video tensor: ``(B, C, F, H, W)``."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def check_video(video: Tensor, *, channels: int | None = None, name: str = "video") -> Tensor:
    """Return `video` unchanged if it is a floating-point ``(B, C, F, H, W)`` tensor with no empty axis.

    Args:
        video: Pixels or latents.
        channels: Required C; None accepts any.
        name: What the message calls the tensor.

    Raises:
        ValueError: if `video` is anything else; the message says what was expected and what came.
    """
    expected = f"{name} must be a floating-point tensor of shape (B, {channels or 'C'}, F, H, W)"
    if not isinstance(video, Tensor):
        raise ValueError(f"{expected}; got {type(video).__name__}")
    if video.ndim != 5:
        raise ValueError(f"{expected}; got {video.ndim} axes, shape {tuple(video.shape)}")
    if channels is not None and video.shape[1] != channels:
        raise ValueError(f"{expected}; got {video.shape[1]} channels, shape {tuple(video.shape)}")
    if 0 in video.shape:
        raise ValueError(f"{expected} with no empty axis; got shape {tuple(video.shape)}")
    if not torch.is_floating_point(video):
        raise ValueError(f"{expected}; got dtype {video.dtype}")
    return video


def fold_frames(video: Tensor) -> Tensor:
    """Put the frames of every video into the batch, for a network that sees single images.

    Shapes:
        (B, C, F, H, W) -> (B * F, C, H, W), the frames of one video next to each other.
    """
    return rearrange(video, "b c f h w -> (b f) c h w")


def unfold_frames(images: Tensor, num_frames: int) -> Tensor:
    """Undo :func:`fold_frames`: ``unfold_frames(fold_frames(v), v.shape[2])`` equals ``v``.

    Shapes:
        (B * F, C, H, W) -> (B, C, F, H, W) with F = `num_frames`.

    Raises:
        ValueError: if `images` is not four-dimensional or its batch is no multiple of `num_frames`.
    """
    if images.ndim != 4 or num_frames < 1 or images.shape[0] % num_frames:
        raise ValueError(
            f"images must have shape (B * F, C, H, W) with F = num_frames = {num_frames}; got {tuple(images.shape)}"
        )
    return rearrange(images, "(b f) c h w -> b c f h w", f=num_frames)
