"""What can be asked of the video enhancer, and what is refused before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from longvid.pipelines.checks import check_embeds, check_generators, check_negatives, check_scale
from longvid.pipelines.inputs import VideoInput
from longvid.pipelines.output import EnhancedChunk
from longvid.pipelines.request import OUTPUT_TYPES
from longvid.pipelines.step_checkpoint import check_checkpoint
from longvid.samplers.guidance_schedule import GuidanceScale, as_guidance_scale
from longvid.samplers.randomized_blending import Cut, paper_cut, released_cut
from longvid.video.host_memory import check_limit

BLENDINGS: dict[str, Cut] = {"paper": paper_cut, "released": released_cut}
_START = ("strength", "noise_timestep")


@dataclass(frozen=True, eq=False)
class EnhanceRequest:
    """Enhance a video of any length: noise is added to it up to a timestep, and taken away again under a prompt.

    As many frames come out as went in. Every number left at None takes the model's own recommendation
    (`pipe.config.call_defaults`), else the one named here.

    Args:
        prompt: What the video shows; a list for a batch of videos.
        video: Tensor (F, 3, H, W) or (B, 3, F, H, W), array (F, H, W, 3) or (B, F, H, W, 3), each float in [0, 1] or
            uint8; a list of PIL images; any iterable of images such as `read_video(path)`; or a path. An iterable is
            read once, and its pixels are never in memory as a whole.
        height: Height in pixels of the result. If only one of height and width is given, the other follows the
            proportions of the video, to the nearest pixel; without both the video keeps its size.
        width: Width in pixels. With both given, the video is scaled to exactly this size, whatever its proportions.
        strength: How much is made anew, in (0, 1]: T' = strength x `num_train_timesteps`; 0.6 by default (T' = 600 of
            1000, as in the paper).
        noise_timestep: T' itself, instead of `strength`: the steps at timesteps below it are made.
        num_inference_steps: Steps of the whole schedule, 50 by default; about `strength` of them are made, 30 as in the
            paper.
        guidance_scale: Classifier-free guidance on the text, 7.5 by default; 1 turns it off.
        guidance_rescale: Share in [0, 1] of the guided prediction that gets its standard deviation back, within each
            window; 0.2 by default, as in the released code.
        chunk_size: Frames that the network sees at once, 24 by default. A shorter video is one chunk of its length.
        overlap: Frames that neighbouring chunks share, 8 by default. The last two share more where the length asks for
            it.
        blending: Where neighbours are joined: "paper" draws from {0..overlap}, the default, "released" from
            {0..overlap - 1}; or a function `cut(overlap, generator) -> int`.
        eta: Noise of DDIM-like schedulers, handed to `scheduler.step` if it takes one.
        negative_prompt: What to steer away from: one for all, or one per prompt.
        num_videos_per_prompt: Results per video; they follow each other in the batch.
        generator: One generator, or one for every video of the batch. Each gives one key when the stream starts, from
            which noise, cuts and the scheduler's own noise are drawn independently of each other.
        latents: The noise that is added, N(0, 1), (B, C, F, h, w) at the padded size, instead of drawn noise.
        prompt_embeds: Embedded prompts (B, N, D) instead of `prompt`.
        negative_prompt_embeds: Embedded negative prompts, of the same shape.
        frames_per_batch: Frames of each video that go through the VAE at once, 8 by default.
        batched_guidance: Whether the text branches are evaluated in one batch, or one by one in less memory.
        host_memory_limit: Bytes that latents of the whole video may take on the host, 4 GiB by default. Past it they
            lie in temporary files, mapped into memory, with the same bits.
        checkpoint: A file that keeps the latents behind every step. The same call goes on from it, bit for bit, if the
            process ends; when the last frame was handed out, it is deleted. With it, pass a `generator` with a seed.
        output_type: "np" (B, F, H, W, C) and "pt" (B, F, C, H, W) in [0, 1], "pil" lists of images, or "latent"
            (B, C, F, h, w), which includes the padding. `stream` gives tensors (B, C, F, H, W).
        return_dict: False returns a tuple; `stream` pays no heed.
        callback_on_step_end: `callback(pipe, step, timestep, callback_kwargs)`, after every call of the scheduler. It
            may return a dict with new latents of the whole video, set `pipe._guidance_scale`, or set
            `pipe._interrupt = True` to end denoising there.
        callback_on_step_end_tensor_inputs: Names of the tensors the callback gets: "latents", "prediction".
        callback_on_chunk_end: `callback(pipe, index, chunk)`, before decoded frames are handed out.
    """

    prompt: str | Sequence[str] | None = None
    video: Any = None
    _: KW_ONLY
    height: int | None = None
    width: int | None = None
    strength: float | None = None
    noise_timestep: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: GuidanceScale | Mapping[str, Any] | None = None
    guidance_rescale: float | None = None
    chunk_size: int | None = None
    overlap: int | None = None
    blending: str | Cut | None = None
    eta: float | None = None
    negative_prompt: str | Sequence[str] | None = None
    num_videos_per_prompt: int = 1
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    latents: Tensor | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    frames_per_batch: int | None = None
    batched_guidance: bool | None = None
    host_memory_limit: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    output_type: str = "np"
    return_dict: bool = True
    callback_on_step_end: Callable[[Any, int, Any, dict], dict | None] | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    callback_on_chunk_end: Callable[[Any, int, EnhancedChunk], None] | None = None

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """Name everything that can be asked for."""
        return frozenset(field.name for field in fields(cls))

    def with_defaults(self, *defaults: dict[str, Any]) -> EnhanceRequest:
        """Fill every field that is None from the first of the dicts that has it; one start is enough."""
        request = self
        for values in defaults:
            started = any(getattr(request, name) is not None for name in _START)
            wanted = {name: values[name] for name in values if not (started and name in _START)}
            request = replace(
                request, **{name: value for name, value in wanted.items() if getattr(request, name) is None}
            )
        return replace(request, guidance_scale=as_guidance_scale(request.guidance_scale))

    @property
    def cut(self) -> Cut:
        """The rule that `blending` names."""
        return BLENDINGS[self.blending] if isinstance(self.blending, str) else self.blending  # type: ignore[return-value]

    @property
    def num_prompts(self) -> int:
        """Prompts or rows of embeddings."""
        if self.prompt_embeds is not None:
            return len(self.prompt_embeds)
        return 1 if isinstance(self.prompt, str) else len(self.prompt or ())

    def start(self, num_train_timesteps: int) -> float:
        """T', however it was asked for."""
        return self.noise_timestep if self.noise_timestep is not None else (self.strength or 0) * num_train_timesteps


def check_enhance(request: EnhanceRequest) -> None:
    """Check everything that needs neither the model nor the video, with every default filled in.

    Raises:
        ValueError: naming what was expected and what came.
    """
    if (request.prompt is None) == (request.prompt_embeds is None):
        given = "neither" if request.prompt is None else "both"
        raise ValueError(f"expected either prompt or prompt_embeds; got {given}")
    prompt = request.prompt
    texts = [prompt] if isinstance(prompt, str) else prompt
    if texts is not None and not (
        isinstance(texts, (list, tuple)) and texts and all(isinstance(text, str) for text in texts)
    ):
        raise ValueError(f"prompt must be a string or a list of strings; got {prompt!r}")
    _check_numbers(request)
    check_limit(request.host_memory_limit)
    if request.checkpoint is not None:
        check_checkpoint(request)
    if not (callable(request.blending) or request.blending in BLENDINGS):
        raise ValueError(f"blending must be one of {', '.join(BLENDINGS)}, or a function; got {request.blending!r}")
    if request.output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}; got {request.output_type!r}")
    check_embeds(request.negative_prompt, request.prompt_embeds, request.negative_prompt_embeds)
    check_negatives(request.negative_prompt, request.num_prompts)


def _check_numbers(request: EnhanceRequest) -> None:
    if request.strength is not None and request.noise_timestep is not None:
        raise ValueError(
            f"expected strength or noise_timestep; got both, {request.strength} and {request.noise_timestep}"
        )
    if request.strength is not None and not (_is_number(request.strength) and 0 < request.strength <= 1):
        raise ValueError(f"strength must lie in (0, 1]; got {request.strength!r}")
    if request.noise_timestep is not None and not _is_number(request.noise_timestep):
        raise ValueError(f"noise_timestep must be a number; got {request.noise_timestep!r}")
    for name in ("num_inference_steps", "chunk_size", "num_videos_per_prompt", "frames_per_batch", "height", "width"):
        value = getattr(request, name)
        if value is None and name in ("height", "width"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
    overlap, size = request.overlap, request.chunk_size
    if not isinstance(overlap, int) or isinstance(overlap, bool) or not 0 <= overlap < (size or 0):
        raise ValueError(f"overlap must be at least 0 and below chunk_size; got overlap={overlap!r}, chunk_size={size}")
    check_scale(request.guidance_scale, "guidance_scale")
    if not _is_number(request.guidance_rescale) or not 0 <= (request.guidance_rescale or 0) <= 1:
        raise ValueError(f"guidance_rescale must lie in [0, 1]; got {request.guidance_rescale!r}")


def check_video_input(request: EnhanceRequest, source: VideoInput) -> int:
    """Check prompts, generators and noise against an opened video.

    Returns:
        The number of videos that are made.

    Raises:
        ValueError: if videos and prompts differ in number, or generators from what is made.
    """
    prompts, videos = request.num_prompts, source.num_videos
    if videos not in (1, prompts) and prompts != 1:
        raise ValueError(f"expected one video and one prompt, or as many of each; got {videos} and {prompts}")
    batch_size = max(prompts, videos) * request.num_videos_per_prompt
    check_generators(request.generator, batch_size)
    return batch_size


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
