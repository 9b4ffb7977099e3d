"""What CAM looks at, and how a video goes on behind given frames: `python tools/measure_cam.py MODEL [--start drawn|awake]`.

Prints, for three levels of noise and every merger, the mean weight with which the first frames of a chunk attend to their own
context frame (with as many context frames K, 1/K is chance); then, for drawn clips that are continued, the change from the last
given frame to the first new one, beside that of the clip as it is drawn and as the VAE copies it, in grey levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDPMScheduler
from einops import rearrange
from torch import Tensor

from longvid import StreamingT2VPipeline
from longvid.modules import ConditionalAttentionModule
from longvid.samplers.noise_schedule import noise_schedule
from longvid.sprites import Scene, caption_clip, draw
from longvid.sprites.evaluate_scenes import evaluation_scenes
from longvid.training.streaming_t2v import wake
from longvid.video.codec import decode_video, encode_video
from longvid.video.layout import unfold_frames

LEVELS = (900, 600, 200)
DIRECTIONS = ("left", "right", "up", "down")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("--start", choices=("drawn", "awake"), help="a new CAM instead of the model's")
    options.add_argument("--clips", type=int, default=8)
    options.add_argument("--guidance-scale", type=float, help="instead of what the model recommends")
    args = options.parse_args()
    pipe = StreamingT2VPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    if args.start:
        torch.manual_seed(0)
        widths = pipe.cam.config["frame_encoder_widths"]
        pipe.cam = ConditionalAttentionModule.from_unet(pipe.unet, frame_encoder_widths=widths).eval()
        if args.start == "awake":
            wake(pipe.cam)
    every = evaluation_scenes(16 * args.clips, 5, "held_out")
    scenes = [scene for scene in every if scene.sprites[0].motion in DIRECTIONS][: args.clips]
    for level in LEVELS:
        weights = own_frame_weights(pipe, scenes, level)
        print(f"t = {level}: own frame {', '.join(f'{weight:.3f}' for weight in weights)}")
    if not args.start:
        for name, change in changes(pipe, scenes, args.guidance_scale).items():
            print(f"last given frame to the first new one, {name}: {change:.1f}")


@torch.no_grad()
def own_frame_weights(pipe: Any, scenes: list[Scene], level: int) -> list[float]:
    """The mean weight, one per merger, of the own context frame at a level of noise."""
    size, overlap = pipe.config.chunk_size, pipe.config.overlap
    pixels = draw(scenes, size) * 2 - 1
    latents = encode_video(pipe.vae, pixels)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    steps = torch.full((len(scenes),), level)
    noisy = DDPMScheduler(**noise_schedule(pipe.scheduler)).add_noise(latents, noise, steps)  # type: ignore[arg-type]
    text = pipe.encode_prompt([caption_clip(scene) for scene in scenes], pipe.device, 1, False)[0]
    encoded = pipe.cam.encode_frames(pixels[:, :, :overlap], num_frames=size)
    features = pipe.cam(noisy, steps, text, encoded_frames=encoded)
    with watched((*pipe.cam.skip_mergers, pipe.cam.mid_merger)) as seen:
        pipe.unet(noisy, steps, text, **pipe.cam.unet_options(features))
    return [own_frame_weight(*call) for call in seen]


@contextmanager
def watched(mergers: tuple[Any, ...]) -> Iterator[list[tuple[Any, Tensor, Tensor, int]]]:
    """Every call of a merger: itself, hidden states, features, frames."""
    seen: list[tuple[Any, Tensor, Tensor, int]] = []
    hooks = [merger.register_forward_hook(lambda merger, given, _: seen.append((merger, *given))) for merger in mergers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def own_frame_weight(merger: Any, hidden: Tensor, features: Tensor, num_frames: int) -> float:
    """The weight that the merger's attention gives to the context frame of the same number, over all places and heads."""
    attention, batch = merger.attention, hidden.shape[0] // num_frames
    video = rearrange(merger.norm(unfold_frames(hidden, num_frames)), "b c f h w -> (b h w) f c")
    context = rearrange(features, "(b f) c h w -> (b h w) f c", b=batch)
    queries = rearrange(attention.to_q(merger.proj_in(video)), "n f (a d) -> n a f d", a=attention.heads)
    keys = rearrange(attention.to_k(context), "n f (a d) -> n a f d", a=attention.heads)
    weights = (queries @ keys.transpose(-1, -2) * attention.scale).softmax(-1)
    return weights.diagonal(dim1=-2, dim2=-1).mean().item()


@torch.no_grad()
def changes(pipe: Any, scenes: list[Scene], guidance_scale: float | None) -> dict[str, float]:
    """The mean change of a pixel from the last given frame to the one behind it, of 255."""
    overlap = pipe.config.overlap
    clips = draw(scenes, overlap + 1)
    given, last = clips[:, :, :overlap], clips[:, :, overlap - 1]
    copied = (decode_video(pipe.vae, encode_video(pipe.vae, clips * 2 - 1)) + 1) / 2
    made = pipe(
        [caption_clip(scene) for scene in scenes],
        video=given,
        num_frames=pipe.config.chunk_size - overlap,
        generator=[torch.Generator().manual_seed(row) for row in range(len(scenes))],
        output_type="pt",
        **({} if guidance_scale is None else {"guidance_scale": guidance_scale}),
    ).frames
    behind = {"drawn": clips[:, :, overlap], "the VAE's copy": copied[:, :, overlap], "continued": made[:, 0]}
    return {name: (frame - last).abs().mean().item() * 255 for name, frame in behind.items()}


if __name__ == "__main__":
    main()
