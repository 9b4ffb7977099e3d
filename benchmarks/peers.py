"""longvid beside the loops that a diffusers user would write or call, on the same networks, in turns, in one run.

* `unet3d`: frames of one chunk from a text-to-video UNet; a loop by hand, and `StreamingT2VPipeline`'s first chunk.
* `animatediff`: frames of one clip; `AnimateDiffPipeline`, and `HARIVOPipeline` without its additions.
* `freenoise`: a longer video; `AnimateDiffPipeline` with FreeNoise, and `HARIVOPipeline` in windows. FreeNoise holds
  the whole video at once and shares its noise, so the two make different videos at different costs.
* `art-v`: one frame under four branches; a loop by hand over the same two networks, and `ARTVPipeline`.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, UNet3DConditionModel, UNetMotionModel
from torch import Tensor

import models
from clocks import PeakMemory, wall_clock
from common import DTYPES, Report, parser, picture_size, settled, spread
from longvid import HARIVOPipeline, decode_video
from longvid.modules import ReferenceConditions, motion_adapter_of

PEERS = ("unet3d", "animatediff", "freenoise", "art-v")
GUIDANCE = 7.5


@dataclass(frozen=True)
class Pair:
    """Two ways to make the same number of frames; where they should agree, `same` says so."""

    peer: str
    theirs: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    num_frames: int
    same: bool = True


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options.add_argument("--size", type=picture_size, help="256 or 1280x720; what the networks are made for")
    options.add_argument("--dtype", choices=DTYPES, default="float32")
    options.add_argument("--steps", type=int, default=25)
    options.add_argument("--level", choices=("eager", "exact", "fast", "max"), default="eager", help="of longvid")
    args = settled(options.parse_args(argv))
    report = Report("peers", args)
    for name in args.peers:
        pair = PAIRS[name](args)
        report.add(what=name, **compared(pair, args))
        del pair
        gc.collect()
    return report.finish()


@torch.no_grad()
def compared(pair: Pair, args: argparse.Namespace) -> dict[str, Any]:
    """Run both in turns, so that a busy moment of the machine hits both; ratios are of neighbours."""
    clock = wall_clock(args.device) if args.device.startswith("cuda") else time.process_time
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    peaks: dict[str, float | None] = {}
    results: dict[str, Tensor] = {}
    for run in range(args.warmup + args.repeats):
        for name in ("theirs", "ours"):
            with PeakMemory(args.device, collect=False) as peak:
                begin = clock()
                results[name] = getattr(pair, name)().float().cpu()
                seconds = clock() - begin
            if run >= args.warmup:
                times[name].append(seconds)
                peaks[name] = peak.device
    row = {
        "peer": pair.peer,
        "frames": pair.num_frames,
        "theirs s": spread(times["theirs"]),
        "ours s": spread(times["ours"]),
        "ours / theirs": spread(a / b for a, b in zip(times["ours"], times["theirs"], strict=True)),
        "theirs device MiB": peaks["theirs"],
        "ours device MiB": peaks["ours"],
    }
    if pair.same:
        row["largest difference"] = (results["ours"] - results["theirs"]).abs().max().item()
    return row


def unet3d(args: argparse.Namespace) -> Pair:
    """A loop over a video UNet, as in the documentation of diffusers, and the first chunk of StreamingT2V."""
    pipe, size, noise = _built("streaming-t2v", args)
    text, null_text = pipe.encode_prompt(models.PROMPT, torch.device(args.device))
    embeds = torch.cat([null_text, text]).to(pipe.unet.dtype)
    unet = _stock(pipe.unet, UNet3DConditionModel)

    def by_hand() -> Tensor:
        pipe.scheduler.set_timesteps(args.steps, device=args.device)
        latents = noise.to(args.device) * pipe.scheduler.init_noise_sigma
        for timestep in pipe.scheduler.timesteps:
            inputs = pipe.scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            predicted = unet(inputs.to(embeds.dtype), timestep, encoder_hidden_states=embeds).sample.float()
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + GUIDANCE * (conditional - unconditional)
            latents = pipe.scheduler.step(predicted, timestep, latents).prev_sample
        return (decode_video(pipe.vae, latents) / 2 + 0.5).clamp(0, 1)

    options = {"guidance_scale": GUIDANCE, "eta": 0.0, "latents": noise}
    ours = _ours(pipe, noise.shape[2], size, args, **options)
    return Pair("a loop by hand over UNet3DConditionModel", by_hand, ours, noise.shape[2])


def animatediff(args: argparse.Namespace) -> Pair:
    """One clip by diffusers' own pipeline."""
    pipe, size, noise = _built("harivo", args)
    theirs = _animatediff(pipe)
    options = {"guidance_scale": GUIDANCE, "num_inference_steps": args.steps, "latents": noise.to(args.device)}
    options |= {"height": size[0], "width": size[1], "num_frames": noise.shape[2], "output_type": "pt"}

    def run() -> Tensor:
        return theirs(models.PROMPT, **options).frames.transpose(1, 2)

    ours = _ours(_bare(pipe), noise.shape[2], size, args, latents=noise, guidance_scale=GUIDANCE, mg_scale=0.0)
    return Pair("AnimateDiffPipeline", run, ours, noise.shape[2])


def freenoise(args: argparse.Namespace) -> Pair:
    """A video of several clips by diffusers' FreeNoise."""
    pipe, size, noise = _built("harivo", args)
    theirs, num_frames = _animatediff(pipe), models.frames_for(pipe, 3)
    options = {"guidance_scale": GUIDANCE, "num_inference_steps": args.steps, "output_type": "pt"}
    options |= {"height": size[0], "width": size[1], "num_frames": num_frames}
    length, stride = pipe.config["window_size"], pipe.config["window_size"] - pipe.config["overlap"]

    theirs.enable_free_noise(context_length=length, context_stride=stride)

    def run() -> Tensor:
        generator = torch.Generator().manual_seed(args.seed)
        return theirs(models.PROMPT, generator=generator, **options).frames.transpose(1, 2)

    ours = _ours(_bare(pipe), num_frames, size, args, guidance_scale=GUIDANCE, mg_scale=0.0)
    return Pair("AnimateDiffPipeline with FreeNoise", run, ours, num_frames, same=False)


def art_v(args: argparse.Namespace) -> Pair:
    """The first frame of ART-V by hand: a loop over both networks with blank references and text guidance."""
    pipe, size, noise = _built("art-v", args)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, prediction_type="epsilon")
    text, null_text = pipe.encode_prompt(models.PROMPT, torch.device(args.device))
    embeds = torch.cat([text, null_text]).to(pipe.unet.dtype)
    blank = torch.zeros_like(noise[:, :, 0]).to(args.device, pipe.unet.dtype).expand(2, -1, -1, -1)
    conditions = {
        "references": torch.cat([blank, blank], dim=1),
        "anchor": blank,
        "noise_level": torch.zeros(2, dtype=torch.long, device=args.device),
    }
    model = pipe.masked_diffusion()
    given = ReferenceConditions(**conditions, static_reference=blank)

    def by_hand() -> Tensor:
        pipe.scheduler.set_timesteps(args.steps, device=args.device)
        latents = noise[:, :, 0].to(args.device) * pipe.scheduler.init_noise_sigma
        for timestep in pipe.scheduler.timesteps:
            inputs = pipe.scheduler.scale_model_input(torch.cat([latents] * 2), timestep).to(embeds.dtype)
            share = pipe.scheduler.alphas_cumprod[timestep.cpu()] if model.needs_alpha_bar else None
            predicted = model(inputs, timestep, embeds, conditions=given, alpha_bar=share).noise.float()
            conditional, unconditional = predicted.chunk(2)
            predicted = unconditional + GUIDANCE * (conditional - unconditional)
            latents = pipe.scheduler.step(predicted, timestep, latents).prev_sample
        return (decode_video(pipe.vae, latents[:, :, None]) / 2 + 0.5).clamp(0, 1)

    ours = _ours(pipe, 1, size, args, latents=noise, guidance_scale=GUIDANCE, noise_level=0)
    return Pair("a loop by hand over both networks, first frame", by_hand, ours, 1)


def _built(method: str, args: argparse.Namespace) -> tuple[Any, tuple[int, int], Tensor]:
    """A pipeline, the size of its frames, and the noise of its first window."""
    pipe = models.build(method, args.models, device=args.device, dtype=DTYPES[args.dtype])
    size = args.size or models.default_size(pipe)
    shape = (models.window_frames(pipe)[0], *(side // pipe.vae_scale_factor for side in size))
    noise = torch.randn(1, pipe.latent_channels, *shape, generator=torch.Generator().manual_seed(args.seed))
    return pipe, size, noise


def _ours(
    pipe: Any, num_frames: int, size: tuple[int, int], args: argparse.Namespace, **options: Any
) -> Callable[[], Tensor]:
    if args.level != "eager":
        pipe.optimize(args.level)

    def chunks() -> Iterator[Tensor]:
        for chunk in models.start(pipe, num_frames, size, args.steps, seed=args.seed, **options):
            yield chunk.frames

    return lambda: torch.cat(list(chunks()), dim=2)


def _bare(pipe: Any) -> HARIVOPipeline:
    """HARIVO on the same networks without mapping network and frame tokens: AnimateDiff's computation."""
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler", "unet")}
    bare = HARIVOPipeline(**parts, window_size=pipe.config["window_size"], overlap=pipe.config["overlap"])
    bare.set_progress_bar_config(disable=True)
    return bare


def _animatediff(pipe: Any) -> AnimateDiffPipeline:
    """diffusers' pipeline around a stock network of the same weights."""
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    unet, adapter = _stock(pipe.unet, UNetMotionModel), motion_adapter_of(pipe.unet)
    theirs = AnimateDiffPipeline(**parts, unet=unet, motion_adapter=adapter)
    theirs.set_progress_bar_config(disable=True)
    return theirs


def _stock(network: Any, kind: type) -> Any:
    """The network as diffusers makes it, with the same weights."""
    with models.made_on(str(network.device), network.dtype):
        stock = kind.from_config(network.config)
    stock.load_state_dict(network.state_dict())
    return stock.eval().requires_grad_(False)


PAIRS = {"unet3d": unet3d, "animatediff": animatediff, "freenoise": freenoise, "art-v": art_v}


if __name__ == "__main__":
    main()
