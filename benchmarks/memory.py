"""Peak memory against the number of frames: every length in a process of its own, frames thrown away as they come."""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import models
from clocks import PeakMemory, resident
from common import DTYPES, Report, parser, picture_size, settled


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Measure and report."""
    options = parser(__doc__, repeats=1, warmup=0)
    options.add_argument("--windows", nargs="+", type=int, default=[2, 8, 32], help="lengths, in windows")
    options.add_argument("--size", type=picture_size, help="256 or 1280x720; what the networks are made for")
    options.add_argument("--dtype", choices=DTYPES, default="float32")
    options.add_argument(
        "--steps", type=int, default=2, help="denoising steps of a window; memory hardly depends on it"
    )
    options.add_argument("--strategy", choices=("streamed", "joint"), default="streamed", help="HARIVO's windows")
    options.add_argument(
        "--host-memory-limit", type=int, metavar="BYTES",
        help="past it, latents of a whole video lie in files (enhancer, joint windows)",
    )  # fmt: skip
    options.add_argument("--in-process", action="store_true", help="all in this process: quick, and less exact")
    options.add_argument("--worker", nargs=2, metavar=("METHOD", "WINDOWS"), help=argparse.SUPPRESS)
    args = settled(options.parse_args(argv))
    if args.worker:
        print(json.dumps(peak(args.worker[0], int(args.worker[1]), args)))
        return None
    report = Report("memory", args)
    for method in args.methods:
        rows = []
        for windows in sorted(args.windows):
            try:
                runs = [_measure(method, windows, args) for _ in range(args.repeats)]
            except RuntimeError as error:  # out of memory, for instance: the other figures stay
                report.note(str(error))
                continue
            rows.append({key: min(run[key] for run in runs) for key in runs[0] if runs[0][key] is not None})
            report.add(method=method, windows=windows, **rows[-1])
        if rows:
            report.add(method=f"{method}, longest to shortest", **compared(rows[0], rows[-1]))
    return report.finish()


def peak(method: str, windows: int, args: argparse.Namespace) -> dict[str, float | None]:
    """Make one video and throw its frames away: memory of the loaded pipeline, and the most while it ran, in MiB.

    A video of one window runs before, so that what is set up once does not count.
    """
    pipe = models.build(method, args.models, device=args.device, dtype=DTYPES[args.dtype])
    size = args.size or models.default_size(pipe)
    extra = _options(method, args)
    for _ in models.start(pipe, models.frames_for(pipe, 1), size, args.steps, **extra):
        pass
    num_frames = models.frames_for(pipe, windows)
    gc.collect()
    before = resident()
    with PeakMemory(args.device, watch=True) as most:
        for _ in models.start(pipe, num_frames, size, args.steps, seed=args.seed, **extra):
            pass
    return {
        "frames": num_frames,
        "loaded MiB": before,
        "peak MiB": most.host,
        "outside of files MiB": most.outside_files,
        "device MiB": most.device,
    }


def compared(short: dict[str, float], long: dict[str, float]) -> dict[str, float]:
    """The longest video beside the shortest: ratio of frames and of peaks, and what a further frame costs."""
    frames = long["frames"] - short["frames"]
    figures = ("frames", "peak MiB", "outside of files MiB", "device MiB")
    ratios = {key: long[key] / short[key] for key in figures if key in short}
    return {
        **ratios,
        "KiB per further frame": (long["peak MiB"] - short["peak MiB"]) * 1024 / frames if frames else 0.0,
    }


def _options(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """What the call gets beside what all get."""
    options: dict[str, Any] = {"strategy": args.strategy} if method == "harivo" else {}
    if method in ("harivo", "enhancer") and args.host_memory_limit is not None:
        options["host_memory_limit"] = args.host_memory_limit
    return options


def _measure(method: str, windows: int, args: argparse.Namespace) -> dict[str, Any]:
    if args.in_process:
        return peak(method, windows, args)
    program = [sys.executable, __file__, "--worker", method, str(windows), "--models", args.models]
    program += ["--device", args.device, "--dtype", args.dtype, "--steps", str(args.steps), "--seed", str(args.seed)]
    program += ["--strategy", args.strategy]
    if args.host_memory_limit is not None:
        program += ["--host-memory-limit", str(args.host_memory_limit)]
    if args.size:
        program += ["--size", f"{args.size[1]}x{args.size[0]}"]
    # the allocator as it comes: settings of the caller would hide what is given back
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(program, capture_output=True, text=True, env=plain)
    if done.returncode:
        raise RuntimeError(f"{method} with {windows} windows failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
