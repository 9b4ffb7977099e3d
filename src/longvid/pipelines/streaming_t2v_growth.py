"""From a text-to-video model to an untrained StreamingT2V model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, TextToVideoSDPipeline, UNet3DConditionModel
from transformers import CLIPVisionModelWithProjection

from longvid import bundled
from longvid.modules.appearance import AppearancePreservationModule
from longvid.modules.conditional_attention import ConditionalAttentionModule, FrameConditioning
from longvid.modules.unet import VideoUNet
from longvid.pipelines.loading import one_dtype

_NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


def grow(
    base: str | os.PathLike | DiffusionPipeline,
    *,
    image_encoder: CLIPVisionModelWithProjection | None = None,
    cam: FrameConditioning | None = None,
    cam_options: Mapping[str, Any] | None = None,
    apm_options: Mapping[str, Any] | None = None,
    load_options: Mapping[str, Any] | None = None,
    **constants: Any,
) -> dict[str, Any]:
    """Give the components of a StreamingT2V model grown from a text-to-video model.

    The UNet computes what the base computes until it is trained: CAM's branch starts as a copy of its encoder with
    mergers that add nothing, and the gates of APM are closed.

    Args:
        base: A pipeline with `vae`, `text_encoder`, `tokenizer`, `unet` (`UNet3DConditionModel`) and `scheduler`, whose
            components are shared; or the folder, hub id or bundled name of one, such as
            `ali-vilab/text-to-video-ms-1.7b`.
        image_encoder: Embeds the anchor frame for APM (the paper: OpenCLIP ViT-H/14); by default that of `base`.
            Without one there is no long-term memory.
        cam: A conditioning module of your own, instead of a new `ConditionalAttentionModule`.
        cam_options: Arguments of `ConditionalAttentionModule` for its new parts.
        apm_options: Arguments of `AppearancePreservationModule`, such as `num_image_tokens`.
        load_options: Arguments of `from_pretrained`, such as `dtype` or `variant`, if `base` is a name.
        constants: Arguments of `StreamingT2VPipeline`, such as `overlap` or another `scheduler`.

    Raises:
        ValueError: if the base is no text-to-video model of that layout, or options are given for a part that is not
            made.
    """
    pipeline = base if isinstance(base, DiffusionPipeline) else load_video_model(os.fspath(base), load_options)
    parts = pipeline.components
    if missing := [name for name in _NEEDED if parts.get(name) is None]:
        raise ValueError(f"expected a text-to-video model; {type(pipeline).__name__} has no {', '.join(missing)}")
    if not isinstance(parts["unet"], UNet3DConditionModel):
        kind = type(parts["unet"]).__name__
        raise ValueError(f"expected a base with a UNet3DConditionModel, ModelScope's layout; got {kind}")
    if cam is not None and cam_options:
        raise ValueError("cam_options are for a new CAM; got a cam too")
    unet = parts["unet"] if isinstance(parts["unet"], VideoUNet) else VideoUNet.from_unet(parts["unet"])
    image_encoder = parts.get("image_encoder") if image_encoder is None else image_encoder
    if image_encoder is None and apm_options:
        raise ValueError("apm_options are for APM, which needs an image_encoder; got none, and the base has none")
    options = {"num_text_tokens": parts["tokenizer"].model_max_length, **(apm_options or {})}
    return {
        **{name: parts[name] for name in _NEEDED},
        "unet": unet,
        "cam": ConditionalAttentionModule.from_unet(unet, **(cam_options or {})) if cam is None else cam,
        "apm": None if image_encoder is None else _memory(unet, image_encoder, options),
        "image_encoder": image_encoder,
        **constants,
    }


def load_video_model(name: str, options: Mapping[str, Any] | None = None) -> DiffusionPipeline:
    """Load a text-to-video model of ModelScope's kind by bundled name, folder or hub id, float32 unless told."""
    given = dict(options or {})
    dtype = one_dtype(given.pop("dtype", None), given.pop("torch_dtype", None))
    given["dtype"] = dtype or torch.float32  # without one, transformers keeps the file's own
    folder = bundled.bundled_models().get(name)
    if folder is None:
        return TextToVideoSDPipeline.from_pretrained(name, **given)
    with bundled.complete_folder(folder) as complete:
        return TextToVideoSDPipeline.from_pretrained(str(complete), **given)


def _memory(unet: VideoUNet, image_encoder: Any, options: Mapping[str, Any]) -> AppearancePreservationModule:
    width = image_encoder.config.projection_dim
    return AppearancePreservationModule.from_unet(unet, **{"image_embed_dim": width, **options})
