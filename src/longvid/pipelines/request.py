"""What a user asks for: one frozen dataclass, declared once, that gives `stream` and `__call__` their signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from longvid.pipelines.prompts import Prompt, PromptPlan, plan_prompts
from longvid.samplers.guidance_schedule import GuidanceScale, as_guidance_scale

if TYPE_CHECKING:
    from longvid.pipelines.output import LongVideoPipelineOutput
    from longvid.video.state import StreamState, VideoChunk

P = ParamSpec("P")
PipelineT = TypeVar("PipelineT")
OUTPUT_TYPES = ("np", "pt", "pil", "latent")


@dataclass(frozen=True, eq=False)
class VideoRequest:
    """Make a video from text, window by window.

    Every number left at None takes the model's own recommendation (`pipe.config.call_defaults`), else the method's.

    Args:
        prompt: One prompt; a list for a batch of videos; with `frames_per_prompt` a list of the prompts of one video,
            or a list of such lists for a batch.
        num_frames: Frames to make. `math.inf` lets `stream` run until its consumer stops.
        frames_per_prompt: Frames of every prompt of a video told in several prompts, or a list with the frames of each.
        height: Height in pixels.
        width: Width in pixels.
        num_inference_steps: Denoising steps of each window.
        guidance_scale: Classifier-free guidance on the text; 1 turns it off. Here and in every method: a number, a
            `GuidanceSchedule` or a dictionary of its fields, or any function of the timestep.
        eta: Noise of DDIM-like schedulers, handed to `scheduler.step` if it takes one.
        negative_prompt: What to steer away from: one for all, or one per prompt.
        num_videos_per_prompt: Videos per prompt; they follow each other in the batch.
        generator: One generator, or one for every video of the batch. Each gives one key when the stream starts; the
            noise of window k depends on (key, k) alone.
        latents: The starting noise of all frames, N(0, 1), (B, C, F, h, w), instead of drawn noise.
        noise_scale: Standard deviation of the noise that every frame starts from, 1 by default. Below it, frames stay
            closer to what their conditions make likely: steadier and less varied videos. `latents` stay as they are.
        prompt_embeds: Embedded prompts (B, N, D) instead of `prompt`; with `frames_per_prompt`, those of one video.
        negative_prompt_embeds: Embedded negative prompts, of the same shape.
        output_type: "np" (B, F, H, W, C) and "pt" (B, F, C, H, W) in [0, 1], "pil" lists of images, or "latent"
            (B, C, F, h, w). `stream` gives tensors (B, C, F, H, W) in [0, 1], or latents for "latent".
        return_dict: False returns a tuple; `stream` pays no heed.
        callback_on_step_end: `callback(pipe, step, timestep, callback_kwargs)`, after every call of the scheduler. It
            may return a dict with new values of the tensors, set `pipe._guidance_scale` for the rest of the window,
            or set `pipe._interrupt = True` to end the video with the frame as it is.
        callback_on_step_end_tensor_inputs: Names of the tensors the callback gets.
        callback_on_chunk_end: `callback(pipe, index, chunk)`, before a chunk is handed out.
        resume: The `StreamState` of a chunk: the stream goes on behind that chunk, bit for bit, if everything else
            is asked for as before. `generator` is not used then.
    """

    prompt: Prompt | None = None
    _: KW_ONLY
    num_frames: float | None = None
    frames_per_prompt: int | Sequence[int] | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: GuidanceScale | Mapping[str, Any] | None = None
    eta: float | None = None
    noise_scale: float | None = None
    negative_prompt: str | Sequence[str] | None = None
    num_videos_per_prompt: int = 1
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    latents: Tensor | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    output_type: str = "np"
    return_dict: bool = True
    callback_on_step_end: Callable[[Any, int, Any, dict], dict | None] | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    callback_on_chunk_end: Callable[[Any, int, VideoChunk], None] | None = None
    resume: StreamState | None = None

    def with_defaults(self, *defaults: dict[str, Any]) -> VideoRequest:
        """Fill every field that is None from the first of the dicts that has it."""
        merged = {name: value for values in reversed(defaults) for name, value in values.items()}
        filled = replace(self, **{name: value for name, value in merged.items() if getattr(self, name) is None})
        return replace(filled, guidance_scale=as_guidance_scale(filled.guidance_scale))

    def laid_out(self, default_num_frames: int) -> VideoRequest:
        """Settle the number of frames: what was asked for, else what the prompts need, else the default."""
        return replace(self, num_frames=self._plan(default_num_frames).num_frames)

    @functools.cached_property
    def prompts(self) -> PromptPlan:
        """The prompts laid out over the frames; see `plan_prompts`."""
        return self._plan(1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, once they are settled."""
        if self.height is None or self.width is None:
            raise ValueError(f"expected height and width; got {self.height} and {self.width}")
        return self.height, self.width

    @property
    def batch_size(self) -> int:
        """Count the videos that are made side by side."""
        return self.prompts.num_videos * self.num_videos_per_prompt

    @property
    def on_host(self) -> bool:
        """Whether a window is a whole video, which lies in host memory while it is denoised."""
        return False

    def _plan(self, default_num_frames: int) -> PromptPlan:
        return plan_prompts(
            self.prompt,
            None if self.prompt_embeds is None else len(self.prompt_embeds),
            num_frames=self.num_frames,
            frames_per_prompt=self.frames_per_prompt,
            default_num_frames=default_num_frames,
        )

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """Name everything that can be asked for."""
        return frozenset(field.name for field in fields(cls))


def streams(request_type: Callable[P, Any], yields: str = "VideoChunk") -> Callable[Concatenate[Any, P], Iterator[Any]]:
    """Give a pipeline its `stream`, which takes what the request takes. Bad input raises at the call."""

    def stream(self: Any, *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        return self.generate(request_type(*args, **kwargs))

    return _described(stream, request_type, "stream", f"an iterator over `{yields}`, made as it is read")


def collects(request_type: Callable[P, Any]) -> Callable[Concatenate[Any, P], LongVideoPipelineOutput]:
    """Give a pipeline its `__call__`: the chunks of `stream`, collected, bit for bit the same."""

    @torch.no_grad()
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> LongVideoPipelineOutput:
        return self.collect(request_type(*args, **kwargs))

    return _described(call, request_type, "__call__", "a `LongVideoPipelineOutput`, or a tuple")


def _described(function: Any, request_type: Any, name: str, returns: str) -> Any:
    """Give a function the request's signature and documentation, for `help`, `inspect` and diffusers' own checks."""
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [own, *inspect.signature(request_type).parameters.values()]
    function.__signature__ = inspect.Signature(parameters)
    function.request_type = request_type
    function.__name__ = function.__qualname__ = name
    function.__module__ = request_type.__module__
    function.__doc__ = f"{inspect.getdoc(request_type)}\n\nReturns:\n    {returns}.\n"
    return function
