"""What the deviation of the starting noise does to HARIVO's videos: `python tools/noise_scales.py MODEL --scales 1 0.5 0.3`.

Makes videos of one sprite that training may have drawn, two thirds of them straight motions. A line per scale says how much
neighbouring frames differ, as a multiple of the drawn videos of the same scenes, all and straight motions alone; in how many
straight videos the judge sees the direction, and in how many of all the shape; and how far straight sprites go per frame, as a
share of the speed of their captions, for every eight frames. `--frames 56` shows what happens behind the first window.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from longvid import LongVideoPipeline
from longvid.sprites import Scene, caption_clip, draw, sample_scene, temporal_flicker
from longvid.sprites.judge import Reading, read_batch
from longvid.sprites.judge_pixels import wrap
from longvid.sprites.scene import DIRECTIONS

SEED = 31
MOTIONS = (*DIRECTIONS, *DIRECTIONS, "bouncing", "circling", "spinning", "still")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("--scales", type=float, nargs="+", required=True)
    options.add_argument("--clips", type=int, default=24)
    options.add_argument("--frames", type=int, default=24)
    args = options.parse_args()
    pipe = LongVideoPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    scenes = [sample_scene(SEED * 2**40 + i, num_sprites=1, motions=MOTIONS) for i in range(args.clips)]
    drawn = draw(scenes, args.frames)
    print("scale", "flicker", "straight", "directions", "shapes", "share of the speed, by eight frames", sep="\t")
    for scale in args.scales:
        made = torch.cat([clips(pipe, scenes, start, args.frames, scale) for start in range(0, len(scenes), 8)])
        print(scale, *line(scenes, made, drawn), sep="\t", flush=True)


def clips(pipe: Any, scenes: list[Scene], start: int, num_frames: int, noise_scale: float) -> Tensor:
    """Videos (B, 3, F, H, W) of up to eight scenes."""
    part = scenes[start : start + 8]
    generators = [torch.Generator().manual_seed(500 + start + i) for i in range(len(part))]
    captions = [caption_clip(scene) for scene in part]
    options = {"num_frames": num_frames, "generator": generators, "noise_scale": noise_scale, "output_type": "pt"}
    return torch.as_tensor(pipe(captions, **options).frames).transpose(1, 2)


def line(scenes: list[Scene], made: Tensor, drawn: Tensor) -> list[str]:
    """The figures of one scale."""
    readings = read_batch(made)
    straight = [i for i, scene in enumerate(scenes) if scene.sprites[0].motion in DIRECTIONS]
    seen = [(scene.sprites[0], reading.sprites[0]) for scene, reading in zip(scenes, readings, strict=True)]
    right = sum(seen[i][0].motion == seen[i][1].motion for i in straight)
    shapes = sum(asked.shape == found.shape for asked, found in seen)
    share = torch.stack([progress(scenes[i], readings[i]) for i in straight]).clamp(-3, 3).mean(0)
    eighths = [f"{part.mean():.2f}" for part in share.split(8)]
    multiples = [multiple(made, drawn, list(range(len(scenes)))), multiple(made, drawn, straight)]
    return [*multiples, f"{right}/{len(straight)}", f"{shapes}/{len(scenes)}", " ".join(eighths)]


def multiple(made: Tensor, drawn: Tensor, rows: list[int]) -> str:
    """The mean flicker of some videos as a multiple of that of the drawn ones."""
    return f"{sum(temporal_flicker(made[i]) for i in rows) / sum(temporal_flicker(drawn[i]) for i in rows):.2f}"


def progress(scene: Scene, reading: Reading) -> Tensor:
    """How far a sprite goes the asked way at every step, as a share of the asked speed, (F - 1,)."""
    asked, seen = scene.sprites[0], reading.sprites[0]
    dx, dy = DIRECTIONS[asked.motion]
    return (wrap(seen.x.diff()) * dx + wrap(seen.y.diff()) * dy) / asked.pixels_per_frame


if __name__ == "__main__":
    main()
