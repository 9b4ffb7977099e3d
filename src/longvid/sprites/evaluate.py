"""Measure models of the built-in world against its bars, on prompts that training never saw, read by the judge."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from longvid.sprites.captions import caption_clip
from longvid.sprites.draw import draw, draw_background
from longvid.sprites.evaluate_frames import evaluate_t2i, evaluate_vae
from longvid.sprites.evaluate_scenes import (
    CHANCE,
    Progress,
    Record,
    evaluation_scenes,
    fit_size,
    mean,
    reconstruct,
    share,
)
from longvid.sprites.judge import SpriteReading, background_drift, read_batch, temporal_flicker
from longvid.sprites.scene import DIRECTIONS, Scene, Split

__all__ = ["evaluate_pipeline", "evaluate_t2i", "evaluate_vae", "evaluation_scenes"]

WINDOW = 16
"""Frames of the windows at the start and at the end."""
SHORT, LONG, STREAMING, TOGETHER, WINDOWED = 64, 256, 240, 24, 96
BARS: dict[int, dict[str, float]] = {
    SHORT: {
        "direction, frames 0-15": 0.92,
        "direction, last 16": 0.85,
        "bouncing": 0.80,
        "circling": 0.80,
        "spinning": 0.80,
        "sprite color, last 16": 0.92,
        "background drift at 16": 5.0,
        "background drift at the end": 10.0,
        "sprite still there": 0.93,
    },
    LONG: {
        "sprite color, last 16": 0.82,
        "background drift at the end": 15.0,
        "sprite still there": 0.85,
    },
    STREAMING: {
        "direction, frames 0-15": 0.90,
        "direction, last 16": 0.80,
        "sprite color, last 16": 0.88,
        "background drift at the end": 12.0,
    },
    TOGETHER: {
        "direction, whole clip": 0.75,
        "sprite color, last 16": 0.95,
        "background color, last 16": 0.95,
        "flicker, as a multiple of drawn videos": 1.3,
    },
    WINDOWED: {
        "step over a seam, as a multiple of others": 1.5,
    },
}
"""Bars by the length they are set for: ART-V 64 and 256 frames, StreamingT2V 240, HARIVO 24 and, by windows, 96."""
LEAST_STEP = 0.25
"""Steps from frame to frame, on the 0-255 scale, below which a picture stands still."""
WHOLE_CLIP = ("bouncing", "circling", "spinning", "breathing", "still")
Spread = Callable[[Sequence[Callable[[], Tensor]]], Iterable[Tensor]]
"""Evaluates tasks and gives their results in order, such as `spread` of processes that were launched together."""
CEILING_PROMPTS = 64
"""The judge itself is measured on the drawn videos of so many prompts, and on the autoencoder's copies of them."""


def evaluate_pipeline(
    pipe: Any,
    *,
    num_prompts: int = 200,
    num_frames: int = SHORT,
    seed: int = 0,
    batch_size: int = 8,
    split: Split | None = "held_out",
    long_prompts: int = 0,
    long_frames: int = LONG,
    call_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Ask a text-to-video pipeline for one-sprite videos, by complete captions, and read them.

    The pipeline is called as a user would, `pipe(prompts, num_frames=..., generator=[...], output_type="pt")`, so that
    its own recommended call defaults hold.

    Args:
        pipe: Any pipeline whose output has `frames` (B, F, 3, H, W) in [0, 1]; with a `vae`, the judge is measured on
            reconstructions too.
        num_prompts: Captions; each is used once, with a seed of its own.
        num_frames: Frames per video, 16 or more; bars are set for 64.
        seed: Chooses scenes and noise.
        batch_size: Videos per call.
        split: Combinations to ask for.
        long_prompts: How many captions are asked for again as long videos.
        long_frames: Frames of those; bars are set for 256.
        call_options: More arguments for the call; what is given here stands in the report.
        progress: Called after each batch.
        spread: Shares the batches with other processes that make the same call; None makes one after the other.

    Returns:
        `{"title", "settings", "figures": {name: figure}, "prompts": [...]}` of plain JSON types, for `format_report`.

    Raises:
        ValueError: if a number is out of range or the pipeline returns another number of videos or frames.
    """
    if num_frames < WINDOW or (long_prompts and long_frames <= num_frames):
        lengths = f"num_frames={num_frames}, long_frames={long_frames}"
        raise ValueError(f"expected num_frames of at least {WINDOW} and long_frames above it; got {lengths}")
    if batch_size < 1 or not 0 <= long_prompts <= num_prompts:
        counts = f"batch_size={batch_size}, long_prompts={long_prompts}, num_prompts={num_prompts}"
        raise ValueError(f"expected batch_size of at least 1 and long_prompts in [0, num_prompts]; got {counts}")
    scenes, started = evaluation_scenes(num_prompts, seed, split), time.monotonic()
    total, options, records = num_prompts + long_prompts, dict(call_options or {}), {}
    for length, count, done in ((num_frames, num_prompts, 0), (long_frames, long_prompts, num_prompts)):
        made = records.setdefault(length, []) if count else []
        batches = []
        for start in range(0, count, batch_size):
            part = scenes[start : min(start + batch_size, count)]
            seeds = [seed * 1_000_003 + start + i for i in range(len(part))]
            how = {"num_frames": length, "options": options, "ceiling": start < CEILING_PROMPTS}
            batches.append(partial(_packed, pipe, part, seeds, **how))
        for packed in spread(batches) if spread else (batch() for batch in batches):
            made += json.loads(bytes(packed.tolist()))
            if progress:
                progress(done + len(made), total)
    figures: dict[str, Any] = {}
    for length, made in records.items():
        figures |= _figures(made, length, scenes)
    settings: dict[str, Any] = {"model": type(pipe).__name__, "prompts": num_prompts, "frames": num_frames}
    settings |= {"seed": seed, "split": split}
    settings |= {"long prompts": long_prompts, "long frames": long_frames} if long_prompts else {}
    settings |= {"call options": {key: str(value) for key, value in options.items()}} if options else {}
    settings |= {"seconds": round(time.monotonic() - started, 1)}
    prompts = [record["asked"] | record["made"] for made in records.values() for record in made]
    return {"title": "text to video", "settings": settings, "figures": figures, "prompts": prompts}


def _packed(pipe: Any, scenes: list[Scene], seeds: list[int], **how: Any) -> Tensor:
    """The records of one batch as the bytes of a JSON text, which can travel between processes."""
    return torch.tensor(list(json.dumps(_measure(pipe, scenes, seeds, **how)).encode()), dtype=torch.uint8)


def _measure(
    pipe: Any, scenes: list[Scene], seeds: list[int], *, num_frames: int, options: dict[str, Any], ceiling: bool
) -> list[Record]:
    """Records of one batch: what was asked, and what was read in the made, the drawn and the reconstructed videos."""
    prompts = [caption_clip(scene) for scene in scenes]
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    call = {"num_frames": num_frames, "generator": generators, "output_type": "pt"} | options
    borders: set[int] = set()
    if hasattr(pipe, "stream"):
        call.setdefault("callback_on_chunk_end", lambda _pipe, _index, chunk: borders.add(chunk.start))
    frames = torch.as_tensor(pipe(prompts, **call).frames)
    if frames.ndim != 5 or frames.shape[:3] != (len(prompts), num_frames, 3):
        expected = f"({len(prompts)}, {num_frames}, 3, H, W)"
        raise ValueError(f"expected frames {expected}; the pipeline gave {tuple(frames.shape)}")
    drawn = draw(scenes, num_frames)
    sources = {"made": fit_size(frames.transpose(1, 2))}
    if ceiling:
        sources["drawn"] = drawn
        if getattr(pipe, "vae", None) is not None:
            sources["vae"] = reconstruct(pipe.vae, drawn)
    read = {name: _read_clips(scenes, videos, borders) for name, videos in sources.items()}
    asked = [{"prompt": p, "seed": s, "frames": num_frames} for p, s in zip(prompts, seeds, strict=True)]
    return [
        {"asked": asked[i], "flicker of the drawn": temporal_flicker(drawn[i])}
        | {name: made[i] for name, made in read.items()}
        for i in range(len(scenes))
    ]


def _read_clips(scenes: Sequence[Scene], videos: Tensor, borders: Collection[int] = ()) -> list[Record]:
    """Which attributes of each video (B, 3, F, 64, 64) are as its caption says; None where the caption does not ask."""
    last = videos.shape[2] - 1
    whole = read_batch(videos) if last < SHORT else None  # the motion of a long video is read in its windows
    heads, tails = read_batch(videos[:, :, :WINDOW]), read_batch(videos[:, :, -WINDOW:])
    records = []
    for row, (scene, video) in enumerate(zip(scenes, videos, strict=True)):
        truth, head, tail = scene.sprites[0], heads[row].sprites[0], tails[row].sprites[0]
        directed = truth.motion in DIRECTIONS
        record: Record = {
            "direction, frames 0-15": head.motion == truth.motion if directed else None,
            "direction, last 16": tail.motion == truth.motion if directed else None,
            "sprite color, frames 0-15": _same_color(head, truth.color),
            "sprite color, last 16": _same_color(tail, truth.color),
            "shape, frames 0-15": _seen(head) and head.shape == truth.shape,
            "shape, last 16": _seen(tail) and tail.shape == truth.shape,
            "background color, last 16": tails[row].background_color == scene.background_color,
            "background style, last 16": tails[row].background_style == scene.background_style,
            "background drift at 16": background_drift(video, 16) if last >= 16 else None,
            "background drift at the end": background_drift(video, last),
            "sprite still there": bool(tail.present[-1]),
            "flicker": temporal_flicker(video),
            "step over a seam, as a multiple of others": seam_ratio(video, borders),
            "motion seen in frames 0-15": head.motion,
            "motion seen in the last 16": tail.motion,
        }
        if whole is not None:
            seen = whole[row].sprites[0]
            right = seen.motion == truth.motion
            record |= {"direction, whole clip": right if directed else None}
            record |= {motion: right if truth.motion == motion else None for motion in WHOLE_CLIP}
            record |= {"size": seen.size == truth.size if truth.motion != "breathing" else None}
            record |= {"speed": seen.speed == truth.speed if right and truth.motion != "still" else None}
            record |= {"motion seen": seen.motion}
        records.append(record)
    return records


def seam_ratio(video: Tensor, borders: Collection[int]) -> float | None:
    r"""The mean step over the borders of a video's chunks as a multiple of the mean step inside of chunks.

    .. math:: \operatorname{mean}_{b} J_b \,/\, \max(\operatorname{mean}_{i \text{ no border}} J_i,\; 0.25)

    J_i is the mean absolute difference of frames i - 1 and i on the 0-255 scale. None for a video of one chunk, or if
    every frame is a chunk.

    Args:
        video: (3, F, H, W) in [0, 1].
        borders: First frames of chunks; 0 is none.
    """
    steps = video.diff(dim=1).abs().mean((0, 2, 3)) * 255
    joins = torch.tensor([frame in set(borders) for frame in range(1, video.shape[1])], dtype=torch.bool)
    if joins.all() or not joins.any():
        return None
    return steps[joins].mean().item() / max(steps[~joins].mean().item(), LEAST_STEP)


def _seen(sprite: SpriteReading) -> bool:
    """Whether the sprite is there in at least half of the frames."""
    return sprite.present.float().mean().item() >= 0.5


def _same_color(sprite: SpriteReading, color: str) -> bool:
    return _seen(sprite) and sprite.color == color


def _figures(records: Sequence[Record], num_frames: int, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Figures of all videos of one length; bars only where they are set for this length."""
    bars = BARS.get(num_frames, {})
    grounds = torch.stack([draw_background(scene) for scene in scenes])
    unrelated = (grounds - grounds.roll(1, 0)).abs().mean().item() * 255 if len(scenes) > 1 else None
    shares = {
        "direction, frames 0-15": "direction",
        "direction, last 16": "direction",
        **({"direction, whole clip": "direction"} if "motion seen" in records[0]["made"] else {}),
        **({motion: "motion" for motion in WHOLE_CLIP} if "motion seen" in records[0]["made"] else {}),
        "sprite color, frames 0-15": "color",
        "sprite color, last 16": "color",
        "shape, frames 0-15": "shape",
        "shape, last 16": "shape",
        "background color, last 16": "background color",
        "background style, last 16": "background style",
        "sprite still there": "",
        **({"size": "size", "speed": "speed"} if "motion seen" in records[0]["made"] else {}),
    }
    figures = {
        name: share(records, name, bar=bars.get(name), chance=CHANCE.get(chance)) for name, chance in shares.items()
    }
    for name in ("background drift at 16", "background drift at the end"):
        figures[name] = mean(records, name, bar=bars.get(name), chance=unrelated, unit="/255")
    figures["flicker"] = mean(records, "flicker", unit="/255")
    name = "flicker, as a multiple of drawn videos"
    figures[name] = mean(_relative_flicker(records, name), name, bar=bars.get(name))
    name = "step over a seam, as a multiple of others"
    if any(record["made"][name] is not None for record in records):
        figures[name] = mean(records, name, bar=bars.get(name))
    return {f"{num_frames} frames: {name}": figure for name, figure in figures.items()}


def _relative_flicker(records: Sequence[Record], name: str) -> list[Record]:
    """The flicker of each video as a multiple of what the drawn videos of all prompts have on average."""
    usual = max(sum(record["flicker of the drawn"] for record in records) / len(records), LEAST_STEP)
    sources = [[source for source in ("made", "drawn", "vae") if source in record] for record in records]
    return [
        {source: {name: record[source]["flicker"] / usual} for source in present}
        for record, present in zip(records, sources, strict=True)
    ]
