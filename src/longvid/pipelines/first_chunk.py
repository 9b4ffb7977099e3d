"""A first chunk that another pipeline makes, from text or from an image."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from longvid.pipelines.inputs import video_batch
from longvid.pipelines.prompts import opening_negatives
from longvid.pipelines.streaming_t2v_request import StreamingT2VRequest


def first_chunk(
    request: StreamingT2VRequest, generator: torch.Generator | list[torch.Generator], num_frames: int
) -> Tensor:
    """Call the request's `first_chunk_pipeline` and take the first `num_frames` frames of what it makes.

    Shapes:
        -> (B, 3, num_frames, H, W) in [-1, 1]. Frames of another size are scaled until they cover the video's, and cut
        at the centre.

    Raises:
        ValueError: if an image is given that it cannot take, or it makes too few frames or another number of videos.
    """
    pipeline = cast(Callable[..., Any], request.first_chunk_pipeline)
    height, width = request.size
    copies = request.num_videos_per_prompt
    offered: dict[str, Any] = {
        "prompt": [video[0] for video in request.prompts.texts or () for _ in range(copies)],
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "generator": generator,
        "output_type": "pt",
    }
    if request.negative_prompt is not None:
        offered["negative_prompt"] = opening_negatives(request.negative_prompt, request.prompts, copies)
    if request.image is not None:
        offered["image"] = _pictures(request.image[:, :, 0])
    call = {**offered, **request.first_chunk_options}
    takes = _taken_by(pipeline)
    if takes is not None and request.image is not None and "image" not in takes:
        raise ValueError(f"expected a first_chunk_pipeline that takes an image; {type(pipeline).__name__} takes none")
    made = pipeline(**{name: value for name, value in call.items() if takes is None or name in takes})
    clips = _clips(made.frames if hasattr(made, "frames") else made[0])
    if len(clips) != request.batch_size:
        raise ValueError(f"first_chunk_pipeline must make {request.batch_size} videos; got {len(clips)}")
    for clip in clips:
        if len(clip) < num_frames:
            raise ValueError(f"first_chunk_pipeline must make at least {num_frames} frames; got {len(clip)}")
    return torch.cat([video_batch(clip, height, width, keep=range(num_frames))[0] for clip in clips])


def _taken_by(pipeline: Callable[..., Any]) -> set[str] | None:
    """Name the arguments that a pipeline takes; None if it takes any."""
    function = pipeline.__call__ if hasattr(pipeline, "components") else pipeline
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return set(parameters)


def _pictures(pixels: Tensor) -> Any:
    """Pixels (B, 3, H, W) in [-1, 1] as PIL images, which every image-to-video pipeline takes; one alone if B is 1."""
    from PIL import Image

    arrays = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    images = [Image.fromarray(array) for array in arrays]
    return images if len(images) > 1 else images[0]


def _clips(made: Any) -> list[Any]:
    """Split what a pipeline returned as `frames` into clips: (B, F, 3, H, W), (B, F, H, W, 3) or lists of images."""
    if isinstance(made, (Tensor, np.ndarray)):
        if made.ndim != 5:
            raise ValueError(f"first_chunk_pipeline must make videos (B, F, 3, H, W); got shape {tuple(made.shape)}")
        return list(made)
    return [list(clip) for clip in made]
