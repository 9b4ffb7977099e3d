"""Clips of the built-in world as latents, drawn and encoded once, with the captions of every use made from the scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longvid.sprites import Scene, draw, sample_scene
from longvid.video.codec import encode_video

REVERSED_MOTION = {"left": "right", "right": "left", "up": "down", "down": "up"}
REVERSIBLE = (*REVERSED_MOTION, "bouncing", "breathing", "still")
"""Motions that the world also has when time runs backwards; circling and spinning are always clockwise."""


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, scenes: Sequence[Scene], num_frames: int, batch: int = 8) -> Tensor:
    """Latents of drawn clips, (N, F, C, h, w) in float16."""
    parts = []
    for first in range(0, len(scenes), batch):
        video = draw(scenes[first : first + batch], num_frames) * 2 - 1
        parts.append(encode_video(vae, video, frames_per_batch=num_frames).transpose(1, 2).half())
    return torch.cat(parts)


def latent_cache(path: str | Path, vae: AutoencoderKL, scenes: Sequence[Scene], num_frames: int) -> Tensor:
    """`encode_scenes`, kept in a safetensors file that is made again when the scenes or the VAE are others."""
    path, mark = Path(path), weights_mark(vae, repr((list(scenes), num_frames)))
    if path.exists():
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("mark") == mark:
                return file.get_tensor("latents")
    latents = encode_scenes(vae, scenes, num_frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({"latents": latents}, partial, {"mark": mark})
    partial.replace(path)
    return latents


def weights_mark(model: nn.Module, text: str = "") -> str:
    """A digest of the weights of a model and a text."""
    digest = hashlib.sha256(text.encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def training_scenes(num_scenes: int, seed: int, motions: tuple[str, ...]) -> list[Scene]:
    """Scenes of the training split."""
    return [sample_scene(seed * 2**40 + i, motions=motions) for i in range(num_scenes)]


def reverse_time(scene: Scene) -> Scene | None:
    """The scene whose video is this one's backwards as far as words go, or None where the world has no such motion."""
    if any(sprite.motion not in REVERSIBLE for sprite in scene.sprites):
        return None
    sprites = tuple(replace(s, motion=REVERSED_MOTION.get(s.motion, s.motion)) for s in scene.sprites)
    return replace(scene, sprites=sprites)


def reversed_scenes(scenes: list[Scene]) -> list[Scene | None]:
    """Every scene with time reversed; None where the world has no words for that, or they belong to the other split."""
    backwards = [reverse_time(scene) for scene in scenes]
    return [back if back and back.split == scene.split else None for back, scene in zip(backwards, scenes, strict=True)]
