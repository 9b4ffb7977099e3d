"""Stable Diffusion models, which the methods grow from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel

from longvid import bundled
from longvid.pipelines.loading import one_dtype

_PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


def load_image_model(name: str, options: Mapping[str, Any] | None = None) -> DiffusionPipeline:
    """Load a Stable Diffusion model by bundled name, folder or hub id: no safety checker, float32 unless told."""
    given = dict(options or {})
    dtype = one_dtype(given.pop("dtype", None), given.pop("torch_dtype", None))
    given["dtype"] = dtype or torch.float32  # without one, transformers keeps the file's own
    options = {"safety_checker": None, "requires_safety_checker": False, **given}
    folder = bundled.bundled_models().get(name)
    if folder is None:
        return StableDiffusionPipeline.from_pretrained(name, **options)
    with bundled.complete_folder(folder) as complete:
        return StableDiffusionPipeline.from_pretrained(str(complete), **options)


def image_parts(
    base: str | os.PathLike | DiffusionPipeline, load_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Give the components of a Stable Diffusion model, from a pipeline or from its name.

    Raises:
        ValueError: if it lacks a part, or its UNet is of another kind.
    """
    pipeline = base if isinstance(base, DiffusionPipeline) else load_image_model(os.fspath(base), load_options)
    parts = pipeline.components
    missing = [name for name in _PARTS if name not in parts]
    if missing:
        raise ValueError(f"expected a Stable Diffusion model; {type(pipeline).__name__} has no {', '.join(missing)}")
    if not isinstance(parts["unet"], UNet2DConditionModel):
        raise ValueError(f"expected a base with a UNet2DConditionModel; got {type(parts['unet']).__name__}")
    return parts
