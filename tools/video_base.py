"""Compare text-to-video bases, or average two: `python tools/video_base.py errors MODEL ...`, `... mean FIRST SECOND OUTPUT`.

`errors` prints the mean squared error of the prediction at several timesteps, on held-out clips of the drawn world with the
same noise for every model. `mean` writes the first model with (1 - share) of its UNet's weights and `share` of the second's.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from longvid.pipelines.streaming_t2v_growth import load_video_model
from longvid.samplers.noise_schedule import noise_schedule
from longvid.sprites import caption_clip, draw
from longvid.sprites.evaluate_scenes import evaluation_scenes
from longvid.video.codec import encode_video

TIMESTEPS = (50, 150, 250, 400, 600, 800, 900)


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    errors = commands.add_parser("errors")
    errors.add_argument("models", nargs="+")
    errors.add_argument("--clips", type=int, default=8)
    errors.add_argument("--frames", type=int, default=16)
    mean = commands.add_parser("mean")
    mean.add_argument("first")
    mean.add_argument("second")
    mean.add_argument("output")
    mean.add_argument("--share", type=float, default=0.4, help="of the second")
    args = options.parse_args()
    if args.command == "mean":
        averaged(args.first, args.second, args.share).save_pretrained(args.output)
        return
    print("t", *TIMESTEPS, sep="\t")
    for model in args.models:
        values = prediction_errors(load_video_model(model), args.clips, args.frames)
        print(model, *(f"{value:.4f}" for value in values), sep="\t")


def averaged(first: str, second: str, share: float) -> Any:
    """The first model, its UNet's weights moved towards the second's."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1]; got {share}")
    pipe: Any = load_video_model(first)
    other: dict[str, Tensor] = load_video_model(second).components["unet"].state_dict()
    pipe.unet.load_state_dict({k: torch.lerp(v, other[k], share) for k, v in pipe.unet.state_dict().items()})
    return pipe


@torch.no_grad()
def prediction_errors(pipe: Any, clips: int, frames: int) -> list[float]:
    """The mean squared error of what the UNet predicts, noise or velocity, at every timestep."""
    scenes = evaluation_scenes(clips, 9, "held_out")
    latents = encode_video(pipe.vae, draw(scenes, frames) * 2 - 1)
    text = pipe.encode_prompt([caption_clip(scene) for scene in scenes], pipe.device, 1, False)[0]
    noises = DDPMScheduler(**noise_schedule(pipe.scheduler))
    values = []
    for timestep in TIMESTEPS:
        steps = torch.full((clips,), timestep)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
        noisy = noises.add_noise(latents, noise, steps)  # type: ignore[arg-type]
        velocity = pipe.scheduler.config.get("prediction_type") == "v_prediction"
        target = noises.get_velocity(latents, noise, steps) if velocity else noise  # type: ignore[arg-type]
        values.append((pipe.unet(noisy, steps, text).sample - target).square().mean().item())
    return values


if __name__ == "__main__":
    main()
