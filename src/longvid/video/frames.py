"""Frames as users hold them (tensors, arrays, PIL images), turned into the uint8 pixels that files hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

# axis of the three channels -> axes of frames, height, width, channels, in the order the layouts are tried
_TENSOR_LAYOUTS = {
    5: {1: (2, 3, 4, 1), 2: (1, 3, 4, 2), 4: (1, 2, 3, 4)},
    4: {0: (1, 2, 3, 0), 1: (0, 2, 3, 1), 3: (0, 1, 2, 3)},
    3: {0: (None, 1, 2, 0), 2: (None, 0, 1, 2)},
}
_ARRAY_LAYOUTS = {num_axes: dict(reversed(layouts.items())) for num_axes, layouts in _TENSOR_LAYOUTS.items()}
_EXPECTED = (
    "frames must be one RGB video as a tensor (1, 3, F, H, W), (3, F, H, W), (F, 3, H, W) or (3, H, W), an array "
    "(1, F, H, W, 3), (F, H, W, 3) or (H, W, 3), a PIL image or a list of PIL images"
)


def uint8_frames(frames: Any) -> np.ndarray:
    """Return `frames` as a uint8 array ``(F, H, W, 3)``, whatever they were.

    Floats in [0, 1] become ``round(255 x)``; uint8 passes unchanged. A tensor is read channels first and an array
    channels last; the other order is understood where the size of the axes leaves no doubt.

    Args:
        frames: One video or one frame: tensor ``(1, 3, F, H, W)``, ``(3, F, H, W)``, ``(F, 3, H, W)`` or
            ``(3, H, W)``; array ``(1, F, H, W, 3)``, ``(F, H, W, 3)`` or ``(H, W, 3)``; a PIL image or a list of them.

    Raises:
        ValueError: if `frames` is of another kind or shape, is empty, mixes sizes, or has floats outside [0, 1] or NaN.
    """
    frames = _stack_images(frames)
    is_tensor = isinstance(frames, Tensor)
    if not is_tensor and not isinstance(frames, np.ndarray):
        raise ValueError(f"{_EXPECTED}; got {type(frames).__name__}")
    shape = tuple(frames.shape)
    layouts = (_TENSOR_LAYOUTS if is_tensor else _ARRAY_LAYOUTS).get(len(shape), {})
    fitting = [axes for channel_axis, axes in layouts.items() if shape[channel_axis] == 3]
    if not fitting or 0 in shape:
        raise ValueError(f"{_EXPECTED}; got shape {shape}")
    if len(shape) == 5 and shape[0] != 1:
        raise ValueError(f"{_EXPECTED}; got a batch of {shape[0]} videos, shape {shape}: write them one by one")
    if len(shape) == 4 and shape[:2] == (3, 3) and (is_tensor or shape[3] != 3):
        raise ValueError(f"the shape {shape} can mean (3, F, H, W) or (F, 3, H, W); pass (1, 3, F, H, W)")
    array = _to_uint8(frames)
    if len(shape) == 5:
        array = array[0]
    order = [axis - (len(shape) == 5) for axis in fitting[0] if axis is not None]
    array = array.transpose(order)
    return np.ascontiguousarray(array if array.ndim == 4 else array[None])


def _stack_images(frames: Any) -> Any:
    """Turn PIL images into one array and leave everything else alone."""
    images = frames if isinstance(frames, (list, tuple)) else [frames]
    if not images or not all(hasattr(image, "convert") for image in images):  # PIL, without importing it
        return frames
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        raise ValueError(f"the frames of a video must have one size; got images of width x height {sizes}")
    return np.stack([np.asarray(image.convert("RGB")) for image in images])


def _to_uint8(frames: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(frames, Tensor):
        frames = frames.detach()
        frames = (frames.float() if frames.is_floating_point() else frames).cpu().numpy()  # numpy has no bfloat16
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"frames must be uint8 or floating point; got {frames.dtype}")
    low, high = float(frames.min()), float(frames.max())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN
        hint = "; for pixels in [-1, 1] pass (frames + 1) / 2" if -1.5 <= low < 0.0 and high <= 1.5 else ""
        raise ValueError(f"floating-point frames must lie in [0, 1]; got values from {low:.4g} to {high:.4g}{hint}")
    return np.rint(frames.astype(np.float32) * 255.0).astype(np.uint8)
