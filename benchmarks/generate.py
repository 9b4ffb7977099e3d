"""How fast videos are made: frames per second, seconds per window, time to the first frame, what is lost outside of
the networks, and peak memory, for every method, size, dtype and mode."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import models
from clocks import NetworkClock, PeakMemory, networks_of, wall_clock
from common import DTYPES, Report, parser, picture_size, settled, spread

MODES = ("eager", "exact", "fast", "max")


@dataclass
class Timing:
    """What several videos of one kind took."""

    rates: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and report."""
    options = parser(__doc__, repeats=3)
    options.add_argument(
        "--sizes", nargs="+", type=picture_size, help="256 or 1280x720; what the networks are made for"
    )
    options.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32"])
    options.add_argument("--modes", nargs="+", choices=MODES, default=["eager"], help="eager, or pipe.optimize(...)")
    options.add_argument("--windows", type=int, default=3, help="windows of a video; a frame is one for ART-V")
    options.add_argument("--steps", type=int, default=50, help="denoising steps of a window")
    args = settled(options.parse_args(argv))
    report = Report("generate", args)
    for method in args.methods:
        for dtype in args.dtypes:
            for mode in args.modes:
                _one_model(method, dtype, mode, args, report)
                gc.collect()
                if args.device.startswith("cuda"):
                    torch.cuda.empty_cache()
    return report.finish()


def _one_model(method: str, dtype: str, mode: str, args: argparse.Namespace, report: Report) -> None:
    pipe = models.build(method, args.models, device=args.device, dtype=DTYPES[dtype])
    left_out = () if mode == "eager" else pipe.optimize(mode).left_out
    for reason in left_out:
        report.note(f"{method}, {mode}: {reason}")
    for size in args.sizes or [models.default_size(pipe)]:
        row = {"method": method, "size": f"{size[1]} x {size[0]}", "dtype": dtype, "mode": mode}
        try:
            report.add(**row, **timed(pipe, size, args))
        except torch.cuda.OutOfMemoryError:
            report.add(**row)
            report.note(f"{method} at {row['size']}, {dtype}, {mode}: out of memory")


def timed(pipe: Any, size: tuple[int, int], args: argparse.Namespace) -> dict[str, Any]:
    """Make videos of one kind: some to warm up, the others timed."""
    clock, timing = wall_clock(args.device), Timing()
    begin = clock()
    for _ in range(args.warmup):
        _video(pipe, size, args, None)
    warm_up = clock() - begin
    with PeakMemory(args.device) as peak:
        for _ in range(args.repeats):
            _video(pipe, size, args, timing)
    return {
        "frames/s": spread(timing.rates),
        "s/window": spread(timing.windows),
        "first frame s": spread(timing.firsts),
        "outside networks": spread(timing.outside),
        "warm-up s": warm_up,
        "device MiB": peak.device,
        "host MiB": peak.host,
    }


def _video(pipe: Any, size: tuple[int, int], args: argparse.Namespace, timing: Timing | None) -> None:
    clock = wall_clock(args.device)
    num_frames = models.frames_for(pipe, args.windows)
    with NetworkClock(networks_of(pipe), args.device, time.perf_counter) as inside:
        times = [clock()]
        for chunk in models.start(pipe, num_frames, size, args.steps, seed=args.seed):
            chunk.frames.cpu()
            times.append(clock())
    if timing is None:
        return
    seconds = times[-1] - times[0]
    timing.rates.append(num_frames / seconds)
    timing.firsts.append(times[1] - times[0])
    # The enhancer denoises all windows together, and its first frame is there when nearly all is done.
    together = len(times) <= 2 or _is_enhancer(pipe)
    further = [later - earlier for earlier, later in zip(times[1:-1], times[2:], strict=True)]
    timing.windows += [seconds / args.windows] if together else further
    timing.outside.append(1 - inside.total / seconds)


def _is_enhancer(pipe: Any) -> bool:
    from longvid import VideoEnhancerPipeline

    return isinstance(pipe, VideoEnhancerPipeline)


if __name__ == "__main__":
    main()
