"""What can be asked of HARIVO, beyond what every method takes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from torch import Tensor

from longvid.pipelines.checks import check_scale
from longvid.pipelines.request import VideoRequest
from longvid.pipelines.step_checkpoint import check_checkpoint
from longvid.pipelines.window_strategies import STRATEGIES, Joint, WindowStrategy
from longvid.samplers.guidance import Scale
from longvid.samplers.guidance_schedule import as_guidance_scale
from longvid.video.host_memory import check_limit


@dataclass(frozen=True, eq=False)
class HARIVORequest(VideoRequest):
    """Make a video from text (HARIVO), or from text and an image through an IP-Adapter.

    A video of up to `window_size` frames is made at once, as in the paper; a longer one in overlapping windows. Every
    number left at None takes the model's own recommendation (`pipe.config.call_defaults`), else the paper's.

    Args:
        prompt: One prompt; a list for a batch of videos; with `frames_per_prompt` a list of the prompts of one video,
            or a list of such lists for a batch. Every frame hears its own prompt.
        image: What the video shows, for the IP-Adapter that is loaded: an image or one for each video, PIL, array
            (H, W, 3), or tensor (3, H, W) in [0, 1]. It is not a frame of the video.
        num_frames: Frames to make, `window_size` by default. `math.inf` lets `stream` run until its consumer stops.
        frames_per_prompt: Frames of every prompt of a video told in several prompts, or a list with the frames of each.
        height: Height in pixels.
        width: Width in pixels.
        num_inference_steps: Denoising steps, 25 by default.
        guidance_scale: Classifier-free guidance on the text, and on the image, 7.5 by default; 1 turns it off. The
            paper's own videos use `GuidanceSchedule()`.
        mg_scale: Strength of mitigating gradient sampling, 40 by default; 0 turns it off. It may be a schedule, as
            `guidance_scale` may. The number is that of latents of 4 x 32 x 32: see `mitigating_gradient`.
        mg_max_ratio: Largest share of the difference of two frames that one step takes away; None is the paper's formula.
        mg_two_sided: Whether a frame is drawn to both neighbours, or to the one before alone (the paper's algorithm).
        strategy: How a video that is longer than a window is made: "streamed" (default) makes one window after another
            in constant memory; "held" does, too, but a window always sees the whole overlap, and less noisy; "joint" makes
            all at once, joined at every step; or a `Streamed` or `Joint` of your own.
        control: Pictures for the ControlNet: a video of `num_frames` frames (tensor (F, 3, H, W) or (B, 3, F, H, W),
            array (F, H, W, 3), list of images), or a dictionary from frame numbers to images, such as
            `{0: first, -1: last}`; the other frames are left free.
        control_scale: Weight of the ControlNet, 1 by default, or a function of the timestep.
        image_embeds: Embedded images instead of `image`, a list with one tensor (B, N, E) for each IP-Adapter; guidance
            holds them against zeros.
        eta: Noise of DDIM-like schedulers, handed to `scheduler.step` if it takes one.
        negative_prompt: What to steer away from: one for all, or one per prompt.
        num_videos_per_prompt: Videos per prompt; they follow each other in the batch.
        generator: One generator, or one for every video of the batch. Each gives one key when the stream starts; the
            noise of window k depends on (key, k) alone, and windows share it where they overlap.
        latents: The starting noise of all frames, N(0, 1), (B, C, F, h, w), instead of drawn noise.
        noise_scale: Standard deviation of the noise that every frame starts from, 1 by default. Below it, frames stay
            closer to what their conditions make likely: steadier and less varied videos. `latents` stay as they are.
        prompt_embeds: Embedded prompts (B, N, D) instead of `prompt`; with `frames_per_prompt`, those of one video.
        negative_prompt_embeds: Embedded negative prompts, of the same shape.
        batched_guidance: Whether the guidance branches are evaluated in one batch, or one by one in less memory.
        host_memory_limit: Bytes that the latents of a whole "joint" video may take on the host, 4 GiB by default. Past
            it they lie in temporary files, mapped into memory, with the same bits.
        checkpoint: A file that keeps the latents of a "joint" video behind every step. The same call goes on from it,
            bit for bit, if the process ends; when all frames are handed out, it is deleted. Needs a `generator`.
        output_type: "np" (B, F, H, W, C) and "pt" (B, F, C, H, W) in [0, 1], "pil" lists of images, or "latent"
            (B, C, F, h, w). `stream` gives tensors (B, C, F, H, W) in [0, 1], or latents for "latent".
        return_dict: False returns a tuple; `stream` pays no heed.
        callback_on_step_end: `callback(pipe, step, timestep, callback_kwargs)`, after every call of the scheduler. It
            may return a dict with new latents, set `pipe._guidance_scale` for the rest of the window, or set
            `pipe._interrupt = True` to end the video with the window as it is.
        callback_on_step_end_tensor_inputs: Names of the tensors the callback gets.
        callback_on_chunk_end: `callback(pipe, index, chunk)`, before a chunk is handed out.
        resume: The `StreamState` of a chunk: the stream goes on behind that chunk, bit for bit, if everything else
            is asked for as before. `generator` is not used then.
    """

    image: Any = None
    _: KW_ONLY
    mg_scale: Scale | Mapping[str, Any] | None = None
    mg_max_ratio: float | None = None
    mg_two_sided: bool | None = None
    strategy: str | WindowStrategy | None = None
    control: Any = None
    control_scale: float | Callable[[float], float] = 1.0
    image_embeds: Sequence[Tensor] | None = None
    batched_guidance: bool | None = None
    host_memory_limit: int | None = None
    checkpoint: str | os.PathLike[str] | None = None

    def with_defaults(self, *defaults: dict[str, Any]) -> HARIVORequest:
        """Fill every field that is None; dictionaries become the schedules they describe."""
        filled: Any = super().with_defaults(*defaults)
        return replace(filled, mg_scale=as_guidance_scale(filled.mg_scale))

    @property
    def counts(self) -> tuple[int, int]:
        """Prompts, and videos in the batch."""
        return self.prompts.num_videos, self.batch_size

    @property
    def windows(self) -> WindowStrategy:
        """The strategy that `strategy` names."""
        return STRATEGIES[self.strategy] if isinstance(self.strategy, str) else self.strategy  # type: ignore[return-value]

    @property
    def on_host(self) -> bool:
        """Whether the whole video is denoised together, as the strategy says."""
        return self.windows.on_host


def check_harivo(request: HARIVORequest, *, num_adapters: int, has_control: bool) -> None:
    """Check what only HARIVO can be asked; images and control pictures are checked where they are read.

    Raises:
        ValueError: naming what was expected and what came.
    """
    check_scale(request.mg_scale, "mg_scale")
    check_limit(request.host_memory_limit)
    ratio = request.mg_max_ratio
    if ratio is not None and not (isinstance(ratio, (int, float)) and ratio > 0):
        raise ValueError(f"mg_max_ratio must be above 0, or None; got {ratio!r}")
    strategy = request.strategy
    known = strategy in STRATEGIES if isinstance(strategy, str) else isinstance(strategy, WindowStrategy)
    if not known:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, or a WindowStrategy; got {strategy!r}")
    if request.num_frames == math.inf and isinstance(request.windows, Joint):
        raise ValueError("a video without end has no whole to be made jointly; use strategy='streamed'")
    if request.checkpoint is not None:
        if not request.on_host:
            raise ValueError("checkpoint keeps the steps of a whole video, strategy='joint'; got streamed windows")
        check_checkpoint(request)
    check_scale(request.control_scale, "control_scale")
    if request.control is not None and not has_control:
        raise ValueError("control needs a ControlNet: build the pipeline with controlnet=...")
    _check_adapters(request, num_adapters)


def _check_adapters(request: HARIVORequest, num_adapters: int) -> None:
    given = [name for name in ("image", "image_embeds") if getattr(request, name) is not None]
    if len(given) > 1:
        raise ValueError("expected either image or image_embeds; got both")
    if given and not num_adapters:
        raise ValueError(f"{given[0]} is shown through an IP-Adapter: call load_ip_adapter first")
    if num_adapters and not given:
        raise ValueError("an IP-Adapter is loaded: expected image or image_embeds (or call unload_ip_adapter)")
    embeds = request.image_embeds
    if embeds is None:
        return
    if not isinstance(embeds, (list, tuple)) or len(embeds) != num_adapters:
        count = len(embeds) if isinstance(embeds, (list, tuple)) else type(embeds).__name__
        raise ValueError(
            f"image_embeds must be a list with one tensor for each of {num_adapters} adapters; got {count}"
        )
    for rows in embeds:
        if not isinstance(rows, Tensor) or rows.ndim < 3 or len(rows) not in (1, request.batch_size):
            shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(f"image_embeds must hold tensors ({request.batch_size}, N, E); got {shape}")
