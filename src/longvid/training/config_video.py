"""The settings of StreamingT2V's training runs: the video base, and CAM and APM on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from longvid.sprites import MOTIONS, PASSING
from longvid.training.config import check_data, check_steps, check_timestep_power
from longvid.training.data import DataOptions
from longvid.training.streaming_t2v import StreamingT2VRecipe
from longvid.training.video_base import VideoBaseRecipe
from longvid.training.ways import check_ways

CONTEXTS = ("pixels", "latents")
STREAMING_CALL_DEFAULTS: dict[str, Any] = {"num_inference_steps": 10, "guidance_scale": 1.5, "num_frames": 64}
"""What the tiny model recommends."""


@dataclass
class VideoBaseSettings(VideoBaseRecipe):
    """What `longvid train video-base` takes: the recipe, and where things come from and go.

    Attributes:
        base: A text-to-image model of the Stable Diffusion kind, or a text-to-video model of ModelScope's kind to train
            further: a bundled name, a folder or a hub id. The video base has its VAE, text encoder, tokenizer and noise
            schedule, and with `channels=null` its UNet, an image UNet inflated.
        output: The folder of the model.
        checkpoint_every: Steps between two checkpoints.
        data: Your own videos; without them, the drawn world.
    """

    base: str = "longvid/base-tiny"
    output: str | None = None
    checkpoint_every: int = 200
    data: DataOptions = field(default_factory=DataOptions)


@dataclass
class StreamingT2VSettings(StreamingT2VRecipe):
    """What `longvid train streaming-t2v` takes: the recipe, the model it starts from, and where things come from and go.

    Attributes:
        base: A text-to-video model with ModelScope's UNet, or a StreamingT2V model to train further with the networks
            it has: a bundled name, a folder or a hub id.
        image_encoder: For a new model, the CLIP image model that APM reads, as a folder, a hub id, or the bundled name
            of a model that has one; null leaves the long-term memory out.
        context: What the model keeps between two chunks, "pixels" or "latents".
        output: The folder of the model.
        checkpoint_every: Steps between two checkpoints.
        call_defaults: Call arguments that the model recommends, such as `num_inference_steps`.
        data: Your own videos; without them, the drawn world.
    """

    base: str = "longvid/enhancer-tiny"
    image_encoder: str | None = "longvid/base-tiny"
    context: str = "pixels"
    output: str | None = None
    checkpoint_every: int = 200
    call_defaults: dict[str, Any] = field(default_factory=lambda: dict(STREAMING_CALL_DEFAULTS))
    data: DataOptions = field(default_factory=DataOptions)


def check_video_base(settings: VideoBaseSettings) -> None:
    """Find settings that cannot work together before any work is done.

    Raises:
        ValueError: with the first one.
    """
    check_data(settings.data, 1, 2)
    check_steps(settings.num_steps, "num_steps")
    _check_draws(settings)
    if settings.data.path is not None and settings.data.min_frames < settings.num_frames:
        raise ValueError(
            f"a sample is num_frames long: expected data.min_frames of at least {settings.num_frames};"
            f" got {settings.data.min_frames}"
        )
    if not 1 <= settings.num_frames <= settings.clip_frames:
        raise ValueError(f"num_frames must be from 1 to clip_frames, {settings.clip_frames}; got {settings.num_frames}")
    check_ways(settings.ways)
    _check_shares(settings, "drop_text", "as_drawn")


def check_streaming_t2v(settings: StreamingT2VSettings) -> None:
    """Find settings that cannot work together before any work is done.

    Raises:
        ValueError: with the first one.
    """
    check_data(settings.data, 1, 2)
    _check_draws(settings)
    for name in ("cam", "apm"):
        if getattr(settings, name).num_steps < 0:
            raise ValueError(f"{name}.num_steps must be at least 0; got {getattr(settings, name).num_steps}")
    if settings.cam.num_steps + settings.apm.num_steps == 0:
        raise ValueError("nothing would be trained: cam.num_steps and apm.num_steps are both 0")
    if not 0 < settings.overlap < settings.chunk_size:
        raise ValueError(f"overlap must be from 1 to chunk_size - 1, {settings.chunk_size - 1}; got {settings.overlap}")
    if settings.anchor_window < 1:
        raise ValueError(f"anchor_window must be at least 1; got {settings.anchor_window}")
    if settings.data.path is not None and settings.data.min_frames < settings.clip_frames:
        raise ValueError(
            f"a sample is anchor_window + chunk_size long: expected data.min_frames of at least {settings.clip_frames};"
            f" got {settings.data.min_frames}"
        )
    if settings.context not in CONTEXTS:
        raise ValueError(f"context must be one of {', '.join(CONTEXTS)}; got {settings.context!r}")
    _check_shares(settings, "drop_text", "drop_anchor", "drop_both")
    total = settings.drop_text + settings.drop_anchor + settings.drop_both
    if total > 1:
        raise ValueError(f"drop_text, drop_anchor and drop_both are shares of the same samples; they add up to {total}")


def _check_draws(settings: Any) -> None:
    check_timestep_power(settings.timestep_power, "timestep_power")
    if unknown := sorted(set(settings.motions) - set(MOTIONS) - set(PASSING)):
        raise ValueError(f"motions are some of {', '.join(MOTIONS + PASSING)}; got {', '.join(unknown)}")


def _check_shares(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name} is a share of the samples, in [0, 1]; got {getattr(settings, name)}")
