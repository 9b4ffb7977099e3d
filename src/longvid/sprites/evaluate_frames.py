"""Measure single frames of the built-in world: text to image, and the autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longvid.sprites.captions import caption_frame, place_words
from longvid.sprites.draw import draw
from longvid.sprites.evaluate_scenes import (
    CHANCE,
    FIRST_SEED,
    Progress,
    Record,
    evaluation_scenes,
    fit_size,
    reconstruct,
    share,
)
from longvid.sprites.judge import read_batch
from longvid.sprites.motion import track
from longvid.sprites.report import mean_figure
from longvid.sprites.scene import Scene, Split, sample_scene


def evaluate_t2i(
    predict_images: Callable[[list[str], int], Tensor],
    *,
    num_prompts: int = 200,
    seed: int = 0,
    batch_size: int = 50,
    split: Split | None = "held_out",
    vae: Any | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ask a text-to-image model for single frames, by complete captions with place words, and read them.

    Args:
        predict_images: Maps captions and a seed to pictures (B, 3, 64, 64) in [0, 1].
        num_prompts: Captions, each used once.
        seed: Chooses the scenes; batch number k is drawn with seed `seed * 1_000_003 + k`.
        batch_size: Captions per call.
        split: Combinations to ask for.
        vae: An autoencoder in [-1, 1]; adds the judge's ceiling on its reconstructions.
        progress: Called after each batch.

    Returns:
        A report, see `longvid.sprites.report`.
    """
    scenes = evaluation_scenes(num_prompts, seed, split)
    records: list[Record] = []
    for index, start in enumerate(range(0, num_prompts, batch_size)):
        part = scenes[start : start + batch_size]
        times = [_pose_frame(start + i) for i in range(len(part))]
        prompts = [caption_frame(scene, time) for scene, time in zip(part, times, strict=True)]
        pictures = fit_size(predict_images(prompts, seed * 1_000_003 + index)[:, :, None])
        drawn = torch.cat([draw(scene, 1, start=time) for scene, time in zip(part, times, strict=True)])
        sources = {"made": pictures, "drawn": drawn} | ({"vae": reconstruct(vae, drawn)} if vae is not None else {})
        made = {name: _read_frames(part, times, video) for name, video in sources.items()}
        records += [{name: made[name][i] for name in made} for i in range(len(part))]
        if progress:
            progress(len(records), num_prompts)
    bars = {"color": 0.98, "background color": 0.98, "background style": 0.95, "shape": 0.85, "place": 0.90}
    figures = {
        name: share(records, name, bar=bars.get(name), chance=CHANCE.get(name))
        for name in (*bars, "size", "sprite present")
    }
    settings = {"prompts": num_prompts, "seed": seed, "split": split}
    return {"title": "text to image", "settings": settings, "figures": figures}


def evaluate_vae(vae: Any, *, num_frames: int = 256, seed: int = 0, batch_size: int = 64) -> dict[str, Any]:
    """Mean PSNR in dB of reconstructed held-out frames, one or two sprites, picture range [0, 1]."""
    first = FIRST_SEED + seed * 1_000_003
    scenes = [sample_scene(first + i, split="held_out") for i in range(num_frames)]
    values: list[float] = []
    for start in range(0, num_frames, batch_size):
        drawn = draw(scenes[start : start + batch_size], 1, start=5)
        error = (reconstruct(vae, drawn) - drawn).square().mean((1, 2, 3, 4)).clamp(min=1e-10)
        values += (-10 * error.log10()).tolist()
    settings = {"frames": num_frames, "seed": seed, "split": "held_out"}
    figure = mean_figure(values, bar=33.0, at_most=False, unit="dB")
    return {"title": "autoencoder", "settings": settings, "figures": {"PSNR": figure}}


def _pose_frame(index: int) -> int:
    """The time at which prompt `index` is looked at: any will do, a spread of them shows turned sprites."""
    return (7 * index) % 32


def _read_frames(scenes: Sequence[Scene], times: Sequence[int], frames: Tensor) -> list[Record]:
    """Which attributes of each frame (B, 3, 1, 64, 64) are as its caption says."""
    records = []
    for scene, time, reading in zip(scenes, times, read_batch(frames), strict=True):
        truth, seen = scene.sprites[0], reading.sprites[0]
        state = track(truth, 1, time)
        there = bool(seen.present[0])
        radius = state.radius.item()
        size = "small" if radius < 10.5 else "large" if radius > 13.5 else "medium"
        records.append({
            "background color": reading.background_color == scene.background_color,
            "background style": reading.background_style == scene.background_style,
            "color": there and seen.color == truth.color,
            "shape": there and seen.shape == truth.shape,
            "size": there and seen.size == size,
            "place": seen.places[0] == place_words(state.x.item(), state.y.item()),
            "sprite present": there,
        })  # fmt: skip
    return records
