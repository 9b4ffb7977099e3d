"""How near the networks come to what the machine can do: their FLOPs by torch's counter, the time they take, and the
matrix-product and copy ceilings of the same device in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import models
from clocks import wall_clock
from common import DTYPES, Report, measured, parser, picture_size, settled, spread

Work = Callable[[], Any]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and report."""
    options = parser(__doc__, repeats=10, warmup=3)
    options.add_argument("--size", type=picture_size, help="256 or 1280x720; what the networks are made for")
    options.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32"])
    options.add_argument("--mode", choices=("eager", "exact", "fast", "max"), default="eager")
    options.add_argument(
        "--branches", type=int, default=2, help="guidance branches in one batch; twice as many for ART-V"
    )
    options.add_argument("--matrix", type=int, help="side of the square matrices; 8192 with CUDA, 1024 without")
    args = settled(options.parse_args(argv))
    report = Report("roofline", args)
    for dtype in args.dtypes:
        matrix, copy = ceilings(args, DTYPES[dtype])
        report.add(what="matrix product", dtype=dtype, **{"TFLOP/s": spread(matrix)})
        report.add(what="copy", dtype=dtype, **{"GB/s": spread(copy)})
        for method in args.methods:
            pipe = models.build(method, args.models, device=args.device, dtype=DTYPES[dtype])
            if args.mode != "eager":
                pipe.optimize(args.mode)
            for name, work, weights in evaluations(pipe, method, args):
                row = against(work, weights, args, (max(matrix), max(copy)))
                report.add(what=f"{method}: {name}", dtype=dtype, **row)
    return report.finish()


@torch.no_grad()
def ceilings(args: argparse.Namespace, dtype: torch.dtype) -> tuple[list[float], list[float]]:
    """TFLOP/s of square matrix products, and GB/s of copies (read and written bytes) of as much as fits no cache."""
    clock, on_cuda = wall_clock(args.device), args.device.startswith("cuda")
    side = args.matrix or (8192 if on_cuda else 1024)
    first = torch.randn(side, side, device=args.device).to(dtype)
    second = torch.randn(side, side, device=args.device).to(dtype)
    seconds = measured(lambda: first @ second, clock, repeats=args.repeats, warmup=args.warmup)
    source = torch.zeros(2**30 if on_cuda else 2**26, device=args.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copies = measured(lambda: target.copy_(source), clock, repeats=args.repeats, warmup=args.warmup)
    return [2 * side**3 / time / 1e12 for time in seconds], [2 * source.numel() / time / 1e9 for time in copies]


@torch.no_grad()
def against(work: Work, weights: int, args: argparse.Namespace, ceiling: tuple[float, float]) -> dict[str, Any]:
    """One network beside the ceilings; `weights` are the bytes that it must read at least."""
    with FlopCounterMode(display=False) as counter:
        work()
    flops = counter.get_total_flops()
    seconds = measured(work, wall_clock(args.device), repeats=args.repeats, warmup=args.warmup)
    by_products, by_reading = flops / ceiling[0] / 1e12, 2 * weights / ceiling[1] / 1e9
    return {
        "GFLOP": flops / 1e9,
        "ms": spread(1000 * time for time in seconds),
        "TFLOP/s": spread(flops / time / 1e12 for time in seconds),
        "of the matrix ceiling": spread(by_products / time for time in seconds),
        "ms to read the weights": 1000 * by_reading,
    }


def evaluations(pipe: Any, method: str, args: argparse.Namespace) -> Iterator[tuple[str, Work, int]]:
    """The evaluations that a step is made of, on random inputs: name, call, bytes of weights."""
    height, width = args.size or models.default_size(pipe)
    height, width = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    batch = args.branches * (2 if method == "art-v" else 1)
    num_frames, like = models.window_frames(pipe)[0], {"device": args.device, "dtype": pipe.unet.dtype}
    sample = torch.randn(batch, pipe.latent_channels, num_frames, height, width, **like)
    tokens = pipe.tokenizer.model_max_length
    text = torch.randn(batch, tokens, pipe.unet.config["cross_attention_dim"], **like)
    timestep = torch.tensor(500, device=args.device)

    def of(network: Any) -> int:
        return sum(weight.numel() * weight.element_size() for weight in network.parameters())

    if method == "art-v":
        conditions = {
            "references": torch.cat([sample[:, :, 0]] * 2, dim=1),
            "anchor": sample[:, :, 0],
            "noise_level": torch.full((batch,), 20, device=args.device),
        }
        for name, network in (("unet", pipe.unet), ("mask network", pipe.mask_network)):
            yield name, lambda network=network: network(sample[:, :, 0], timestep, text, **conditions), of(network)
    elif method == "streaming-t2v":
        pixels = torch.rand(1, 3, pipe.config["overlap"], *(s * pipe.vae_scale_factor for s in (height, width)), **like)
        encoded = pipe.cam.encode_frames(pixels, num_frames=num_frames)
        features = pipe.cam(sample, timestep, text, encoded_frames=encoded)
        yield "cam", lambda: pipe.cam(sample, timestep, text, encoded_frames=encoded), of(pipe.cam)
        yield "unet", lambda: pipe.unet(sample, timestep, text, **pipe.cam.unet_options(features)), of(pipe.unet)
    elif method == "harivo":
        frames_text = text.repeat_interleave(num_frames, dim=0)
        yield "unet", lambda: pipe.unet(sample, timestep, frames_text), of(pipe.unet)
        yield "mapping network", lambda: pipe.mapping_network(sample), of(pipe.mapping_network)
    else:
        yield "unet", lambda: pipe.unet(sample, timestep, text), of(pipe.unet)
    frame = sample[:1, :, 0]
    yield "vae decoder, one frame", lambda: pipe.vae.decode(frame), of(pipe.vae.decoder)


if __name__ == "__main__":
    main()
