"""What every pipeline asks of a request before work starts. Each check raises ValueError with expected and got."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from longvid.pipelines.request import OUTPUT_TYPES, VideoRequest

if TYPE_CHECKING:
    from longvid.video.state import StreamState
    from longvid.video.windows import Window


def check_request(request: VideoRequest, *, size_multiple: int, latent_factor: int, latent_channels: int) -> None:
    """Check everything that needs no model: counts, sizes, generators, latents, embeddings, output.

    Args:
        request: With every default filled in.
        size_multiple: Height and width must be multiples of this.
        latent_factor: Pixels per latent, along each side.
        latent_channels: Channels of a latent.

    Raises:
        ValueError: naming the first thing that is wrong.
    """
    _check_counts(request)
    for name in ("height", "width"):
        size = getattr(request, name)
        if not isinstance(size, int) or size < size_multiple or size % size_multiple:
            raise ValueError(f"{name} must be a multiple of {size_multiple} for this model; got {size}")
    if request.output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}; got {request.output_type!r}")
    check_generators(request.generator, request.batch_size)
    if request.latents is not None:
        sizes = (size // latent_factor for size in request.size)
        expected = (request.batch_size, latent_channels, request.num_frames, *sizes)
        if tuple(request.latents.shape) != expected:
            raise ValueError(f"latents must have shape {expected}; got {tuple(request.latents.shape)}")
    check_embeds(request.negative_prompt, request.prompt_embeds, request.negative_prompt_embeds)
    num_prompts = request.prompts.num_videos * request.prompts.num_segments
    check_negatives(request.negative_prompt, num_prompts)
    embeds = request.negative_prompt_embeds
    if embeds is not None and len(embeds) != num_prompts:
        raise ValueError(f"negative_prompt_embeds must be one for each of {num_prompts} prompts; got {len(embeds)}")


def check_callback_tensors(names: Sequence[str], known: Sequence[str]) -> None:
    """Check that a step callback asks only for tensors that the pipeline hands out."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs must be among {list(known)}; got {unknown}")


def check_resume(
    state: StreamState,
    request: VideoRequest,
    fingerprint: dict[str, str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Check that a saved state was made by this model, for videos such as are asked for.

    Args:
        state: What was loaded.
        request: What is to be made with it.
        fingerprint: Of the pipeline.
        shapes: Of the tensors that a context holds behind the first window; None leaves them unchecked.

    Raises:
        ValueError: naming what differs.
    """
    different = sorted(name for name, value in fingerprint.items() if state.fingerprint.get(name, value) != value)
    if different:
        raise ValueError(f"the saved state was made by another model; different: {', '.join(different)}")
    if len(state.keys) not in (1, request.batch_size):
        raise ValueError(f"the saved state holds {len(state.keys)} videos; the request makes {request.batch_size}")
    for name, tensor in state.context.items():
        num_videos = tensor.shape[0] if tensor.ndim else 0
        if num_videos != request.batch_size:
            raise ValueError(f"the saved {name} holds {num_videos} videos; the request makes {request.batch_size}")
    if shapes is not None:
        _check_context(state, shapes)


def check_place(state: StreamState, windows: Sequence[Window]) -> None:
    """Check that a saved state lies between two windows of a video.

    Raises:
        ValueError: if it lies behind the last one, or its video ended within a window, which a longer one makes whole.
    """
    done = state.next_window
    if done > len(windows):
        raise ValueError(f"the saved state lies behind {done} windows; the request has {len(windows)}")
    if not done or state.num_frames is None or state.num_frames == (stop := windows[done - 1].new.stop):
        return
    raise ValueError(
        f"the saved state lies behind {state.num_frames} frames, where its own video ended; with this num_frames the window"
        f" goes to frame {stop}: go on from the state of the chunk before"
    )


def _check_context(state: StreamState, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in state.context.items()}
    missing = sorted(shapes.keys() - found.keys()) if state.next_window else []
    unknown = sorted(found.keys() - shapes.keys())
    if missing or unknown:
        raise ValueError(
            f"a saved state of this model holds {', '.join(sorted(shapes)) or 'no tensors'}; "
            f"got {', '.join(sorted(found)) or 'none'}"
        )
    for name, shape in found.items():
        if shape != shapes[name]:
            raise ValueError(f"the saved {name} must have shape {shapes[name]} for this request; got {shape}")
        if not state.context[name].is_floating_point():
            raise ValueError(f"the saved {name} must be floating point; got {state.context[name].dtype}")


def _check_counts(request: VideoRequest) -> None:
    for name in ("num_frames", "num_inference_steps", "num_videos_per_prompt"):
        value = getattr(request, name)
        endless = name == "num_frames" and value == math.inf
        if not endless and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
    check_scale(request.guidance_scale, "guidance_scale")
    if not is_finite(request.noise_scale) or request.noise_scale < 0:  # type: ignore[operator]
        raise ValueError(f"noise_scale must be a number of at least 0; got {request.noise_scale!r}")


def check_scale(value: object, name: str) -> None:
    """Check that a scale is a number of at least 0, or a function of the timestep, such as a `GuidanceSchedule`."""
    if callable(value):
        return
    if not is_finite(value) or value < 0:  # type: ignore[operator]
        raise ValueError(f"{name} must be a number of at least 0; got {value!r}")


def is_finite(value: object) -> bool:
    """Whether something is a number, and neither infinite nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_steps(scheduler: Any, num_inference_steps: int) -> None:
    """Check that no timestep comes twice: some schedulers refuse that themselves, others divide by zero."""
    known = getattr(scheduler.config, "num_train_timesteps", None)
    if known is not None and num_inference_steps > known:
        raise ValueError(
            f"num_inference_steps must be at most {known}, the timesteps of training; got {num_inference_steps}"
        )


def check_generators(generator: torch.Generator | Sequence[torch.Generator] | None, batch_size: int) -> None:
    """Check that there is one generator, or one for each video, or none."""
    several = isinstance(generator, (list, tuple))
    generators = list(generator) if several else [generator]  # type: ignore[arg-type]
    if several and len(generators) != batch_size:
        raise ValueError(f"a list of generators must have one per video, {batch_size}; got {len(generators)}")
    for item in generators:
        if not (isinstance(item, torch.Generator) or (item is None and not several)):
            raise ValueError(f"generator must be a torch.Generator or a list of them; got {type(item).__name__}")


def check_embeds(
    negative_prompt: str | Sequence[str] | None, embeds: torch.Tensor | None, negative_embeds: torch.Tensor | None
) -> None:
    """Check that text and embeddings do not contradict each other."""
    if negative_embeds is not None and negative_prompt is not None:
        raise ValueError("expected either negative_prompt or negative_prompt_embeds; got both")
    if embeds is not None and negative_embeds is not None and embeds.shape != negative_embeds.shape:
        raise ValueError(
            "prompt_embeds and negative_prompt_embeds must have one shape; "
            f"got {tuple(embeds.shape)} and {tuple(negative_embeds.shape)}"
        )
    for name, given in (("prompt_embeds", embeds), ("negative_prompt_embeds", negative_embeds)):
        if given is not None and given.ndim != 3:
            raise ValueError(f"{name} must have shape (B, N, D); got {tuple(given.shape)}")


def check_embeds_width(embeds: torch.Tensor | None, width: object) -> None:
    """Check that given embeddings are as wide as a UNet reads them; a width that differs by layer is not compared."""
    if embeds is not None and isinstance(width, int) and embeds.shape[-1] != width:
        raise ValueError(f"prompt_embeds must be {width} wide for this model; got {embeds.shape[-1]}")


def check_negatives(negative_prompt: object, num_prompts: int) -> None:
    """Check that a negative prompt is a text, or a list with one, or one for each prompt."""
    if negative_prompt is None or isinstance(negative_prompt, str):
        return
    if not isinstance(negative_prompt, (list, tuple)) or not all(isinstance(text, str) for text in negative_prompt):
        raise ValueError(f"negative_prompt must be a string or a list of strings; got {negative_prompt!r}")
    if len(negative_prompt) not in (1, num_prompts):
        raise ValueError(
            f"negative_prompt must be one, or one for each of {num_prompts} prompts; got {len(negative_prompt)}"
        )
