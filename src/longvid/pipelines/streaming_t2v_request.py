"""What can be asked of StreamingT2V, beyond what every method takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from longvid.pipelines.checks import is_finite
from longvid.pipelines.inputs import for_every_video, image_batch, video_batch
from longvid.pipelines.request import VideoRequest


@dataclass(frozen=True, eq=False)
class StreamingT2VRequest(VideoRequest):
    """Make a video of any length chunk by chunk (StreamingT2V), from text, from an image, or from another video's end.

    Every number left at None takes the model's own recommendation (`pipe.config.call_defaults`), else the method's.

    Args:
        prompt: One prompt; a list for a batch of videos; with `frames_per_prompt` a list of the prompts of one video,
            or a list of such lists for a batch. A chunk has the prompt of its first new frame.
        image: The first frame, or one for each video of the batch: PIL image, array (H, W, 3), or tensor (3, H, W) in
            [0, 1]. It comes back as frame 0, and the video goes on from it as from a still; with a
            `first_chunk_pipeline` it goes to that.
        video: A video to be continued: tensor (F, 3, H, W) or (B, 3, F, H, W), array (F, H, W, 3), or an iterable of
            images such as `read_video(path)`. The first chunk continues its last frames; only new frames are made.
        num_frames: Frames to make, 24 by default. `math.inf` lets `stream` run until its consumer stops.
        frames_per_prompt: Frames of every prompt of a video told in several prompts, or a list with the frames of each.
        height: Height in pixels.
        width: Width in pixels.
        num_inference_steps: Denoising steps of each chunk, 50 by default.
        guidance_scale: Classifier-free guidance on the text, 7.5 by default; 1 turns it off.
        anchor_guidance_scale: Guidance on the anchor frame (Eq. 13); None is that of the text, which costs two
            evaluations per step instead of three.
        anchor_frame: Which frame of the first chunk, or of `video`, the whole video keeps to.
        anchor_image: A picture to keep to instead, or one for each video of the batch, of the kinds of `image`.
        eta: Noise of DDIM-like schedulers, 1 by default, handed to `scheduler.step` if it takes one.
        negative_prompt: What to steer away from: one for all, or one per prompt.
        num_videos_per_prompt: Videos per prompt; they follow each other in the batch.
        generator: One generator, or one for every video of the batch. Each gives one key when the stream starts; the
            noise of chunk k depends on (key, k) alone.
        latents: The starting noise of all frames, N(0, 1), (B, C, F, h, w), instead of drawn noise; frames that two
            chunks share then start both from the same noise.
        noise_scale: Standard deviation of the noise that every frame starts from, 1 by default. Below it, frames stay
            closer to what their conditions make likely: steadier and less varied videos. `latents` stay as they are.
        prompt_embeds: Embedded prompts (B, N, D) instead of `prompt`; with `frames_per_prompt`, those of one video.
        negative_prompt_embeds: Embedded negative prompts, of the same shape.
        first_chunk_pipeline: A text-to-video or image-to-video pipeline that makes the first chunk. It is called with
            the prompt and those of `image`, `num_frames`, `height`, `width`, `negative_prompt`, `generator` and
            `output_type="pt"` that it takes; its first frames, as many as a chunk has, open the video as they are.
        first_chunk_options: More arguments for that call, such as `{"num_inference_steps": 25}`.
        batched_guidance: Whether the guidance branches are evaluated in one batch, or one by one in less memory.
        output_type: "np" (B, F, H, W, C) and "pt" (B, F, C, H, W) in [0, 1], "pil" lists of images, or "latent"
            (B, C, F, h, w). `stream` gives tensors (B, C, F, H, W) in [0, 1], or latents for "latent".
        return_dict: False returns a tuple; `stream` pays no heed.
        callback_on_step_end: `callback(pipe, step, timestep, callback_kwargs)`, after every call of the scheduler. It
            may return a dict with new latents, set `pipe._guidance_scale` for the rest of the chunk, or set
            `pipe._interrupt = True` to end the video with the chunk as it is.
        callback_on_step_end_tensor_inputs: Names of the tensors the callback gets.
        callback_on_chunk_end: `callback(pipe, index, chunk)`, before a chunk is handed out.
        resume: The `StreamState` of a chunk: the stream goes on behind that chunk, bit for bit, if everything else
            is asked for as before: `image` and `video` then only say how the video began, their pixels are not read. `generator`
            and `anchor_image` are not used.
    """

    image: Any = None
    video: Any = None
    _: KW_ONLY
    anchor_guidance_scale: float | None = None
    anchor_frame: int = 0
    anchor_image: Any = None
    first_chunk_pipeline: Callable[..., Any] | None = None
    first_chunk_options: Mapping[str, Any] = field(default_factory=dict)
    batched_guidance: bool | None = None

    @property
    def starts_over(self) -> bool:
        """Whether the stream begins at frame 0, and not behind a saved state."""
        return self.resume is None or self.resume.next_window == 0


def check_streaming(request: StreamingT2VRequest, *, chunk_size: int, has_anchor: bool) -> None:
    """Check what only StreamingT2V can be asked.

    Raises:
        ValueError: naming what was expected and what came.
    """
    given = [name for name in ("image", "first_chunk_pipeline") if getattr(request, name) is not None]
    if request.video is not None and given:
        raise ValueError(f"a video is continued as it is: expected it alone; got video and {' and '.join(given)}")
    if request.first_chunk_pipeline is not None and request.prompts.texts is None:
        raise ValueError("first_chunk_pipeline needs prompt; got prompt_embeds")
    if request.first_chunk_options and request.first_chunk_pipeline is None:
        raise ValueError("first_chunk_options go to a first_chunk_pipeline; got none")
    scale = request.anchor_guidance_scale
    if scale is not None and (not is_finite(scale) or scale < 0):
        raise ValueError(f"anchor_guidance_scale must be a number of at least 0; got {scale!r}")
    if not has_anchor and (scale is not None or request.anchor_image is not None):
        raise ValueError("this model has no apm: anchor_guidance_scale and anchor_image have no effect")
    frame, opened = request.anchor_frame, request.video is None
    if not isinstance(frame, int) or isinstance(frame, bool):
        raise ValueError(f"anchor_frame must be a whole number; got {frame!r}")
    opening = 1 if request.image is not None and request.first_chunk_pipeline is None else chunk_size
    length = min(opening, request.num_frames or opening)
    if opened and not -length <= frame < length:
        raise ValueError(f"anchor_frame must be a frame of the first chunk, which has {length}; got {frame}")


def pixels_of(request: StreamingT2VRequest, *, overlap: int) -> StreamingT2VRequest:
    """Turn what the user brought into pixels in [-1, 1], for every video of the batch; a resumed stream needs none.

    Shapes:
        image -> (B, 3, 1, H, W); video -> its last frames, (B, 3, overlap, H, W); anchor_image -> (B, 3, H, W): what was
        given, else the anchor as far as it is known before the first chunk.

    Raises:
        ValueError: if something is of the wrong kind, range, shape, length or number.
    """
    anchor = None
    if not request.starts_over:
        return replace(request, anchor_image=None)
    size, counts = request.size, (request.prompts.num_videos, request.batch_size)
    if request.image is not None:
        pixels = for_every_video(image_batch(request.image, *size), *counts, "image")
        request = replace(request, image=pixels.unsqueeze(2))
        anchor = None if request.first_chunk_pipeline is not None else pixels
    if request.video is not None:
        keep = (*range(-overlap, 0), request.anchor_frame)
        pixels, num_given = video_batch(request.video, *size, keep=keep)
        if num_given < overlap:
            raise ValueError(f"a video to be continued must have at least {overlap} frames; got {num_given}")
        if not -num_given <= request.anchor_frame < num_given:
            raise ValueError(
                f"anchor_frame must be a frame of the video, which has {num_given}; got {request.anchor_frame}"
            )
        pixels = for_every_video(pixels, *counts, "video")
        request, anchor = replace(request, video=pixels[:, :, :overlap]), pixels[:, :, overlap]
    if request.anchor_image is not None:
        given = image_batch(request.anchor_image, *size, name="anchor_image")
        anchor = for_every_video(given, *counts, "anchor_image")
    return replace(request, anchor_image=anchor)
