"""The training runs of StreamingT2V: the video base, then CAM and APM on it, each leaving a pipeline folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDPMScheduler, TextToVideoSDPipeline
from torch import nn
from transformers import CLIPVisionModelWithProjection

from longvid import bundled
from longvid.modules import VideoUNet
from longvid.pipelines.image_model import load_image_model
from longvid.pipelines.sources import model_index
from longvid.pipelines.streaming_t2v import StreamingT2VPipeline
from longvid.pipelines.streaming_t2v_growth import load_video_model
from longvid.samplers.noise_schedule import noise_schedule
from longvid.training import captioned
from longvid.training.clip import tokenize
from longvid.training.config_video import StreamingT2VSettings, VideoBaseSettings, check_streaming_t2v, check_video_base
from longvid.training.data import find_clips
from longvid.training.frame_store import pixel_store
from longvid.training.latent_sources import drawn_latents, own_latents
from longvid.training.loop import TrainingRecord
from longvid.training.streaming_t2v import (
    StageOptions,
    StreamingT2VObjective,
    drawn_chunks,
    train_cam,
    train_cam_and_apm,
    train_memories,
    wake,
)
from longvid.training.video_base import VideoObjective, build_video_unet, drawn_clips, video_base_scenes
from longvid.training.workspace import Workspace

VIDEO_UNETS = ("UNet3DConditionModel", "VideoUNet")
"""UNets of a base that `run_video_base` trains further."""


def run_video_base(settings: VideoBaseSettings) -> Iterator[TrainingRecord]:
    """Train a text-to-video UNet over one chunk of frames, and leave `settings.output` as a pipeline folder of diffusers.

    VAE, text encoder, tokenizer and scheduler are those of `settings.base`. A base that is a text-to-video model
    already is trained further. Killed at any moment and started again with the same settings, the run goes on from its
    last checkpoint and ends in the same weights.

    Raises:
        ValueError: for settings that cannot work, data that cannot be read, a base that cannot be inflated, or a folder
            that holds another run.
    """
    check_video_base(settings)
    work = Workspace(settings.output, settings)
    torch.manual_seed(settings.seed)
    base, unet = _video_unet(settings)
    if settings.data.path is None:
        scenes = video_base_scenes(settings)
        latents, _ = drawn_latents(work, base.vae, settings, scenes, num_frames=settings.clip_frames)
        batches = drawn_clips(settings, latents, scenes, base.tokenizer)
    else:
        store = yield from own_latents(work, settings.data, base.vae, base.tokenizer)
        batches = captioned.captioned_clips(settings, store, base.tokenizer)
    null_ids = tokenize(base.tokenizer, [""])[0]
    objective = VideoObjective(unet.train(), training_noise(base.scheduler), settings, base.text_encoder, null_ids)
    yield from work.train("video_base", objective, batches, settings)
    parts = {name: getattr(base, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    work.publish(TextToVideoSDPipeline(**parts, unet=unet.eval()).save_pretrained)


def run_streaming_t2v(
    settings: StreamingT2VSettings, grow: Callable[[StreamingT2VSettings], StreamingT2VPipeline] | None = None
) -> Iterator[TrainingRecord]:
    """Grow `settings.base` into StreamingT2V, train CAM, then CAM and APM, and leave `settings.output` as a folder.

    A base that is a StreamingT2V model already is trained further, with the networks that it has. Killed at any moment
    and started again with the same settings, the run goes on from its last checkpoint and ends in the same weights.

    Args:
        settings: The recipe, and where things come from and go.
        grow: Builds the model to be trained, with another conditioning module than CAM for instance.

    Raises:
        ValueError: for settings that cannot work, data that cannot be read, a base without the layout of a video UNet,
            or a folder that holds another run.
    """
    check_streaming_t2v(settings)
    work = Workspace(settings.output, settings)
    torch.manual_seed(settings.seed)
    pipeline = (_trained(settings) or _untrained(settings)) if grow is None else grow(settings)
    tokenizer = pipeline.tokenizer
    if settings.data.path is None:
        latents, scenes = drawn_latents(work, pipeline.vae, settings, num_frames=settings.clip_frames)
        batches = drawn_chunks(settings, latents, scenes, tokenizer)
    else:
        store = yield from own_latents(work, settings.data, pipeline.vae, tokenizer)
        pixels = pixel_store(work.root / "frames", find_clips(settings.data.path), settings.data)
        yield from work.fill("frames", pixels)
        batches = captioned.captioned_chunks(settings, store, pixels, tokenizer)
    networks = (pipeline.unet, pipeline.cam, pipeline.apm)
    objective = StreamingT2VObjective(
        *networks,
        training_noise(pipeline.scheduler),
        settings,
        text_encoder=cast(nn.Module, pipeline.text_encoder),
        image_encoder=pipeline.image_encoder,
        null_ids=tokenize(tokenizer, [""])[0],
    )
    for part in networks:
        if part is not None:
            part.train()
    stages = {"cam": train_cam, "apm": train_cam_and_apm if settings.train_spatial_layers else train_memories}
    for name, choose in stages.items():
        stage: StageOptions = getattr(settings, name)
        if stage.num_steps == 0:
            continue
        choose(*networks)
        yield from work.train(name, objective, batches, stage)
    for part in networks:
        if part is not None:
            part.eval().requires_grad_(True)
    work.publish(pipeline.save_pretrained)


def _video_unet(settings: VideoBaseSettings) -> tuple[Any, VideoUNet]:
    """The model that lends its other parts, and the UNet to be trained: the model's own, inflated or new."""
    if model_index(settings.base).get("unet", ["", ""])[1] not in VIDEO_UNETS:
        base: Any = load_image_model(settings.base)
        return base, build_video_unet(settings, base.unet)
    if settings.channels is not None:
        raise ValueError(
            f"channels are for a new UNet; got {list(settings.channels)}, and {settings.base!r} is a text-to-video model"
            " already: leave them null to train it further"
        )
    base = load_video_model(settings.base)
    return base, base.unet if isinstance(base.unet, VideoUNet) else VideoUNet.from_unet(base.unet)


def training_noise(scheduler: Any) -> DDPMScheduler:
    """The noise schedule of a sampler, as training adds it."""
    predicts = scheduler.config.get("prediction_type", "epsilon")
    return DDPMScheduler(**noise_schedule(scheduler), prediction_type=predicts, clip_sample=False)


def _image_encoder(name: str) -> Any:
    """A CLIP image model by itself, or that of a pipeline folder."""
    folder = bundled.bundled_models().get(name, Path(name))
    if (folder / "image_encoder").is_dir():
        folder = folder / "image_encoder"
    source = str(folder) if folder.is_dir() else name
    return CLIPVisionModelWithProjection.from_pretrained(source, dtype=torch.float32)


def _trained(settings: StreamingT2VSettings) -> StreamingT2VPipeline | None:
    """The base itself, if it is a StreamingT2V model."""
    if model_index(settings.base).get("_class_name") != StreamingT2VPipeline.__name__:
        return None
    if settings.awake_start:
        raise ValueError(f"awake_start=true is for a new CAM; {settings.base!r} has a trained one")
    pipeline = StreamingT2VPipeline.from_pretrained(settings.base)
    for name in ("chunk_size", "overlap"):
        if (has := pipeline.config[name]) != (given := getattr(settings, name)):
            raise ValueError(f"{name} must be {has}, as in the base; got {given}")
    pipeline.register_to_config(context=settings.context, call_defaults=dict(settings.call_defaults) or None)
    return pipeline


def _untrained(settings: StreamingT2VSettings) -> StreamingT2VPipeline:
    encoder = None
    if settings.image_encoder is not None:
        encoder = _image_encoder(settings.image_encoder)
    pipeline = StreamingT2VPipeline.from_base(
        load_video_model(settings.base),
        image_encoder=encoder,
        cam_options={"frame_encoder_widths": tuple(settings.frame_encoder_widths)},
        apm_options=None
        if encoder is None
        else {"num_image_tokens": settings.num_image_tokens, "inner_dim": settings.image_inner_dim},
        chunk_size=settings.chunk_size,
        overlap=settings.overlap,
        context=settings.context,
        call_defaults=dict(settings.call_defaults) or None,
    )
    if settings.awake_start:
        wake(pipeline.cam)
    return pipeline
