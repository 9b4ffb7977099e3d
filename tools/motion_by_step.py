"""At which level of noise a video's motion is decided: `python tools/motion_by_step.py MODEL`.

Makes videos of straight motions that training may have drawn, one direction as often as another, and after every step of the
sampler reads the sprite out of the clean estimate. A line per step says the timestep, its signal-to-noise ratio, in how many
clips the judge sees the direction, and how far the sprite is from an even motion at the speed of the caption: the standard
deviation, over the frames, of its distance along the way, in pixels (mean over the clips).

For methods that denoise all frames at once: HARIVO, and the first chunk of StreamingT2V.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from longvid import LongVideoPipeline
from longvid.samplers.prediction import alpha_bar, to_x0
from longvid.sprites import Scene, caption_clip
from longvid.sprites.judge import read_batch
from longvid.sprites.judge_pixels import wrap
from longvid.sprites.scene import DIRECTIONS
from longvid.training.latents import training_scenes
from longvid.training.ways import SPEED_SAID
from longvid.video.codec import decode_video

Estimates = list[tuple[int, float, Tensor]]
SEED = 11


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("--clips", type=int, default=8)
    options.add_argument("--frames", type=int, default=24)
    options.add_argument("--mg-scale", type=float, help="of HARIVO, instead of what the model recommends")
    args = options.parse_args()
    pipe = LongVideoPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    scenes, extra = straight_scenes(args.clips), {} if args.mg_scale is None else {"mg_scale": args.mg_scale}
    print("t", "SNR", "direction", "px off", sep="\t")
    for timestep, ratio, latents in clean_estimates(pipe, scenes, args.frames, **extra):
        right, distance = evenness((decode_video(pipe.vae, latents) + 1) / 2, scenes)
        print(timestep, f"{ratio:.4f}", f"{right}/{len(scenes)}", f"{distance:.2f}", sep="\t", flush=True)


def straight_scenes(count: int) -> list[Scene]:
    """Scenes of one sprite each, whose directions take turns."""
    kinds = [
        [scene for scene in training_scenes(25 * count, SEED, (motion,)) if len(scene.sprites) == 1]
        for motion in DIRECTIONS
    ]
    return [scene for turn in zip(*kinds, strict=False) for scene in turn][:count]


def clean_estimates(pipe: Any, scenes: list[Scene], num_frames: int, **options: Any) -> Estimates:
    """Timestep, signal-to-noise ratio and clean estimate (B, C, F, h, w) of every step of one call."""
    seen: Estimates = []
    with watched(pipe.scheduler, seen):
        captions = [caption_clip(scene, 0, SPEED_SAID) for scene in scenes]
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(scenes))]
        pipe(captions, num_frames=num_frames, generator=generators, output_type="latent", **options)
    return seen


@contextmanager
def watched(scheduler: Any, seen: Estimates) -> Iterator[None]:
    """Note the clean estimate of every step that a scheduler of this class takes."""
    step = type(scheduler).step

    def noted(self: Any, prediction: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
        signal = float(alpha_bar(self, timestep))
        clean = to_x0(prediction, self.scale_model_input(sample, timestep), timestep, self)
        seen.append((int(timestep), signal / (1 - signal), clean))
        return step(self, prediction, timestep, sample, *args, **options)

    with patch.object(type(scheduler), "step", noted):
        yield


def evenness(videos: Tensor, scenes: list[Scene]) -> tuple[int, float]:
    """In how many videos (B, C, F, H, W) the judge sees the direction, and how far their sprites are from an even motion."""
    right, distances = 0, []
    for reading, scene in zip(read_batch(videos.clamp(0, 1)), scenes, strict=True):
        [asked], seen = scene.sprites, reading.sprites[0]
        right += seen.motion == asked.motion
        dx, dy = DIRECTIONS[asked.motion]
        along = torch.as_tensor(seen.x if dx else seen.y).double()
        frames = torch.arange(len(along), dtype=torch.float64)
        off = wrap(along - along[0] - (dx + dy) * asked.pixels_per_frame * frames)
        turn = torch.atan2((off * torch.pi / 32).sin().mean(), (off * torch.pi / 32).cos().mean()) * 32 / torch.pi
        distances.append(wrap(off - turn).square().mean().sqrt().item())
    return right, sum(distances) / len(distances)


if __name__ == "__main__":
    main()
