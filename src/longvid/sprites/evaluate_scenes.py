"""What evaluations share: the scenes they ask for, the chance levels, and figures made of per-prompt records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.sprites.report import mean_figure, share_figure
from longvid.sprites.scene import (
    BACKGROUND_COLORS,
    DIRECTIONS,
    MOTIONS,
    RADII,
    SHAPES,
    SIZE,
    SPEEDS,
    SPRITE_COLORS,
    STYLES,
    Scene,
    Split,
    sample_scene,
)

Progress = Callable[[int, int], None]
"""Called with (prompts done, prompts in all)."""
Record = dict[str, Any]

FIRST_SEED = 3_000_000_000
"""Scenes of an evaluation are `FIRST_SEED + seed * 1_000_003 + i`."""
MOTION_MIX: tuple[str, ...] = (
    "left", "bouncing", "right", "circling", "up", "spinning", "down", "breathing",
    "left", "bouncing", "right", "circling", "up", "spinning", "down", "still",
)  # fmt: skip
"""Motions are dealt in this order, so that each bar rests on enough prompts: half of all prompts are directions."""
CHANCE = {
    "color": 1 / len(SPRITE_COLORS),
    "shape": 1 / len(SHAPES),
    "background color": 1 / len(BACKGROUND_COLORS),
    "background style": 1 / len(STYLES),
    "place": 1 / 9,
    "direction": 1 / len(DIRECTIONS),
    "motion": 1 / len(MOTIONS),
    "size": 1 / len(RADII),
    "speed": 1 / len(SPEEDS),
}
"""Shares that a model which ignores the prompt, but makes proper videos of the asked kind, would reach."""


def evaluation_scenes(num_prompts: int, seed: int = 0, split: Split | None = "held_out") -> list[Scene]:
    """The one-sprite scenes that an evaluation asks for; the first n are the same for every larger number."""
    if num_prompts < 1:
        raise ValueError(f"num_prompts must be at least 1; got {num_prompts}")
    first = FIRST_SEED + seed * 1_000_003
    return [
        sample_scene(first + i, split=split, num_sprites=1, motions=(MOTION_MIX[i % len(MOTION_MIX)],))
        for i in range(num_prompts)
    ]


def share(records: Sequence[Record], name: str, **levels: float | None) -> dict[str, Any]:
    """The share of True under `name` in what was made; records without an answer (None) are left out."""
    figure = share_figure(answers(records, "made", name), **levels)
    return figure | {f"ceiling_{source}": ceiling(records, source, name) for source in ("drawn", "vae")}


def mean(records: Sequence[Record], name: str, **levels: Any) -> dict[str, Any]:
    """The mean of the numbers under `name` in what was made, as `share` does for True and False."""
    figure = mean_figure(answers(records, "made", name), **levels)
    return figure | {f"ceiling_{source}": ceiling(records, source, name) for source in ("drawn", "vae")}


def answers(records: Sequence[Record], source: str, name: str) -> list[Any]:
    """What records say under `name` about `source` ("made", "drawn" or "vae"), where they say anything."""
    return [r[source][name] for r in records if source in r and r[source].get(name) is not None]


def ceiling(records: Sequence[Record], source: str, name: str) -> float | None:
    """What the judge reads in videos that are known to be right."""
    values = answers(records, source, name)
    return mean_figure([float(v) for v in values])["value"]


@torch.no_grad()
def reconstruct(vae: Any, videos: Tensor) -> Tensor:
    """Encode and decode videos (B, 3, F, H, W) in [0, 1], frame by frame."""
    weight = next(vae.parameters())
    frames = videos.transpose(1, 2).flatten(0, 1).to(weight) * 2 - 1
    made = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in frames.split(64)]
    made = ((torch.cat(made).float().cpu().clamp(-1, 1) + 1) / 2).unflatten(0, (videos.shape[0], videos.shape[2]))
    return made.transpose(1, 2)


def fit_size(videos: Tensor) -> Tensor:
    """Videos (B, 3, F, H, W) as float on the CPU; a picture larger than the world is averaged down to it."""
    videos = videos.detach().float().cpu()
    if videos.shape[-2:] == (SIZE, SIZE):
        return videos
    frames = F.interpolate(videos.transpose(1, 2).flatten(0, 1), (SIZE, SIZE), mode="area")
    return frames.unflatten(0, (videos.shape[0], videos.shape[2])).transpose(1, 2)
