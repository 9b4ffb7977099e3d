"""What can be asked of ART-V, beyond what every method takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from longvid.pipelines.checks import is_finite
from longvid.pipelines.inputs import for_every_video, image_batch, video_batch
from longvid.pipelines.prompts import opening_negatives
from longvid.pipelines.request import VideoRequest

REDRAWS = ("frame", "eval")


@dataclass(frozen=True, eq=False)
class ARTVRequest(VideoRequest):
    """Make a video frame by frame (ART-V), from text, from text and a first frame, or from the end of another video.

    Every number left at None takes the model's own recommendation (`pipe.config.call_defaults`), else the paper's.

    Args:
        prompt: One prompt; a list for a batch of videos; with `frames_per_prompt` a list of the prompts of one video,
            or a list of such lists for a batch.
        image: The first frame, or one for each video of the batch: PIL image, array (H, W, 3), or tensor (3, H, W) in
            [0, 1]. It is scaled and cut at the centre to the size of the video, and comes back as frame 0.
        video: A video to be continued: tensor (F, 3, H, W) or (B, 3, F, H, W), array (F, H, W, 3), or an iterable of
            images such as `read_video(path)`. Its last two frames are the first references; only new frames are made.
        num_frames: Frames to make, 16 by default. `math.inf` lets `stream` run until its consumer stops.
        frames_per_prompt: Frames of every prompt of a video told in several prompts, or a list with the frames of each.
            Within the first prompt the anchor is the first frame, then the last frame of the prompt before.
        height: Height in pixels.
        width: Width in pixels.
        num_inference_steps: Denoising steps of each frame, 50 by default.
        guidance_scale: Classifier-free guidance on the text, 7.5 by default (the paper's weight plus one); 1 turns
            it off.
        reference_guidance_scale: Weight of the guidance on the references, 0.25 by default.
        anchor_guidance_scale: Weight of the guidance on the anchor, 0.25 by default.
        noise_level: How noisy the references and the anchor are made, a training timestep, 200 by default.
        eta: Noise of DDIM-like schedulers, handed to `scheduler.step` if it takes one.
        negative_prompt: What to steer away from: one for all, or one per prompt.
        num_videos_per_prompt: Videos per prompt; they follow each other in the batch.
        generator: One generator, or one for every video of the batch. Each gives one key when the stream starts; the
            noise of frame k depends on (key, k) alone.
        latents: The starting noise of all frames, N(0, 1), (B, C, F, h, w), instead of drawn noise.
        noise_scale: Standard deviation of the noise that every frame starts from, 1 by default. Below it, frames stay
            closer to what their conditions make likely: steadier and less varied videos. `latents` stay as they are.
        prompt_embeds: Embedded prompts (B, N, D) instead of `prompt`; with `frames_per_prompt`, those of one video.
        negative_prompt_embeds: Embedded negative prompts, of the same shape.
        anchor_frame: Which frame of `video` is the anchor. -1, its last, is what the paper does at the start of a new
            prompt; 0 keeps to the look of its beginning.
        first_frame_pipeline: A text-to-image pipeline that makes frame 0. It is called with the prompt, the size, and
            those of `negative_prompt`, `generator`, `output_type="pt"` and `num_images_per_prompt` that it takes.
        redraw: "frame" draws the references' noise once per frame, "eval" at every evaluation of the networks.
        reencode: Whether a frame is decoded and encoded again before it becomes a reference.
        batched_guidance: Whether the guidance branches are evaluated in one batch, or one by one in less memory.
        output_masks: Whether the masks are kept, in `chunk.extras["masks"]` and `output.masks`.
        output_type: "np" (B, F, H, W, C) and "pt" (B, F, C, H, W) in [0, 1], "pil" lists of images, or "latent"
            (B, C, F, h, w). `stream` gives tensors (B, C, F, H, W) in [0, 1], or latents for "latent".
        return_dict: False returns a tuple; `stream` pays no heed.
        callback_on_step_end: `callback(pipe, step, timestep, callback_kwargs)`, after every call of the scheduler. It
            may return a dict with new latents, set `pipe._guidance_scale` for the rest of the frame, or set
            `pipe._interrupt = True` to end the video with the frame as it is.
        callback_on_step_end_tensor_inputs: Names of the tensors the callback gets.
        callback_on_chunk_end: `callback(pipe, index, chunk)`, before a frame is handed out.
        resume: The `StreamState` of a chunk: the stream goes on behind that chunk, bit for bit, if everything else
            is asked for as before. `generator`, `image` and `video` are not used then.
    """

    image: Any = None
    video: Any = None
    _: KW_ONLY
    reference_guidance_scale: float | None = None
    anchor_guidance_scale: float | None = None
    noise_level: int | None = None
    anchor_frame: int = -1
    first_frame_pipeline: Callable[..., Any] | None = None
    redraw: str | None = None
    reencode: bool | None = None
    batched_guidance: bool | None = None
    output_masks: bool = False


def check_art_v(request: ARTVRequest, *, num_levels: int, has_masks: bool) -> None:
    """Check what only ART-V can be asked.

    Raises:
        ValueError: naming what was expected and what came.
    """
    sources = [name for name in ("image", "video", "first_frame_pipeline") if getattr(request, name) is not None]
    if len(sources) > 1:
        raise ValueError(f"expected one of image, video and first_frame_pipeline; got {' and '.join(sources)}")
    if request.first_frame_pipeline is not None and request.prompts.texts is None:
        raise ValueError("first_frame_pipeline needs prompt; got prompt_embeds")
    for name in ("reference_guidance_scale", "anchor_guidance_scale"):
        value = getattr(request, name)
        if not is_finite(value):
            raise ValueError(f"{name} must be a number; got {value!r}")
    if not isinstance(request.anchor_frame, int) or isinstance(request.anchor_frame, bool):
        raise ValueError(f"anchor_frame must be a whole number; got {request.anchor_frame!r}")
    level = request.noise_level
    if not isinstance(level, int) or not 0 <= level < num_levels:
        raise ValueError(f"noise_level must be a whole number from 0 to {num_levels - 1}; got {level!r}")
    if request.redraw not in REDRAWS:
        raise ValueError(f"redraw must be one of {', '.join(REDRAWS)}; got {request.redraw!r}")
    if request.output_masks and not has_masks:
        raise ValueError("output_masks=True needs a mask network; this model has mask_network=None")


def pixels_of(request: ARTVRequest) -> ARTVRequest:
    """Turn the given frames into pixels in [-1, 1], for every video of the batch; a resumed stream needs none.

    Shapes:
        image -> (B, 3, 1, H, W); video -> (B, 3, 3, H, W): its newest, its older and its anchor frame.

    Raises:
        ValueError: if an image or video is of the wrong kind, range, shape or number.
    """
    if request.resume is not None and request.resume.next_window > 0:
        return replace(request, image=None, video=None)
    counts = request.prompts.num_videos, request.batch_size
    if request.image is not None:
        pixels = image_batch(request.image, *request.size).unsqueeze(2)
        return replace(request, image=for_every_video(pixels, *counts, "image"))
    if request.video is None:
        return request
    pixels, num_given = video_batch(request.video, *request.size, keep=(-1, -2, request.anchor_frame))
    if not -num_given <= request.anchor_frame < num_given:
        raise ValueError(
            f"anchor_frame must be a frame of the video, which has {num_given}; got {request.anchor_frame}"
        )
    return replace(request, video=for_every_video(pixels, *counts, "video"))


def first_frames(request: ARTVRequest, generator: torch.Generator | list[torch.Generator]) -> Tensor:
    """Call the text-to-image pipeline for the first frames: (B, 3, 1, H, W) in [-1, 1].

    Raises:
        ValueError: if it returns no images, or another number of them.
    """
    pipeline, copies = cast(Callable[..., Any], request.first_frame_pipeline), request.num_videos_per_prompt
    height, width = request.size
    texts = [video[0] for video in request.prompts.texts or () for _ in range(copies)]
    known = inspect.signature(pipeline.__call__ if hasattr(pipeline, "components") else pipeline).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    options = {"generator": generator, "output_type": "pt", "num_images_per_prompt": 1}
    if request.negative_prompt is not None:
        options["negative_prompt"] = opening_negatives(request.negative_prompt, request.prompts, copies)
    options = {name: value for name, value in options.items() if takes_all or name in known}
    result = pipeline(prompt=texts, height=height, width=width, **options)
    images = getattr(result, "images", None)
    images = images if images is not None else (result[0] if isinstance(result, tuple) else result)
    pixels = image_batch(images, height, width, name="the first frame")
    if pixels.shape[0] != request.batch_size:
        raise ValueError(f"first_frame_pipeline must make {request.batch_size} images; got {pixels.shape[0]}")
    return pixels.unsqueeze(2)
