"""What longvid costs beside the networks, on the CPU with tiny models: in the loop, at import, and in loading.

Time is processor time of this process with one thread, so that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import models
from clocks import NetworkClock, OperationCount, networks_of
from common import Report, parser, settled, spread

IMPORTS = ("longvid", "torch", "longvid.pipelines.art_v")
_IMPORT = "import time; begin = time.process_time(); import {name}; print(time.process_time() - begin)"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and report."""
    options = parser(__doc__)
    options.set_defaults(device="cpu")
    options.add_argument("--windows", type=int, default=4, help="windows of a video; ART-V makes four times as many")
    options.add_argument("--steps", type=int, default=8, help="denoising steps of a window")
    options.add_argument("--level", choices=("none", "exact", "fast", "max"), default="none", help="pipe.optimize(...)")
    options.add_argument("--skip-loading", action="store_true", help="leave import and loading out")
    args = settled(options.parse_args(argv))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        report = Report("overhead", args)
        for method in args.methods:
            report.add(**loop(method, args))
        if not args.skip_loading:
            for name in IMPORTS:
                report.add(what=f"import {name}", seconds=spread(imported(name) for _ in range(args.repeats)))
            report.add(what="load longvid/art-v-tiny", seconds=spread(loaded(args)))
        return report.finish()
    finally:
        torch.set_num_threads(before)


def loop(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Make a video several times: processor time of a frame, and its share outside of the networks."""
    pipe = models.build(method, args.models, device=args.device)
    if args.level != "none":
        pipe.optimize(args.level)
    windows = args.windows * (4 if method == "art-v" else 1)
    num_frames, size = models.frames_for(pipe, windows), models.default_size(pipe)

    def work() -> None:
        for _ in models.start(pipe, num_frames, size, args.steps, seed=args.seed):
            pass

    totals, shares = [], []
    for run in range(args.warmup + args.repeats):
        seconds, inside = _timed(work, pipe, args.device)
        if run >= args.warmup:
            totals.append(seconds / num_frames)
            shares.append(1 - inside / seconds)
    return {
        "what": f"{method}, {num_frames} frames of {size[1]} x {size[0]}",
        "seconds": spread(totals),
        "unit": "per frame",
        "outside the networks": spread(shares),
        **operations(pipe, args),
    }


def operations(pipe: Any, args: argparse.Namespace) -> dict[str, float]:
    """Operations of torch per call of the UNet in the steps of a window, in all networks and beside them.

    What a graph of the whole step could save, where each network has one already, is the start of those beside them.
    What a window takes once cancels out between a run and one of twice the steps.
    """
    counts = []
    for steps in (args.steps, 2 * args.steps):
        clock = NetworkClock(networks_of(pipe), args.device, time.process_time)
        with clock, OperationCount(clock) as count:
            for _ in models.start(pipe, models.frames_for(pipe, 1), models.default_size(pipe), steps, seed=args.seed):
                pass
        counts.append((count.inside, count.outside, clock.calls["unet"]))
    inside, outside, calls = (more - less for less, more in zip(*counts, strict=True))
    return {"operations in networks": inside / calls, "beside them": outside / calls}


def _timed(work: Callable[[], None], pipe: Any, device: str) -> tuple[float, float]:
    with NetworkClock(networks_of(pipe), device, time.process_time) as clock:
        begin = time.process_time()
        work()
        seconds = time.process_time() - begin
    return seconds, clock.total


def imported(name: str) -> float:
    """Processor time that a fresh interpreter spends on an import."""
    program = [sys.executable, "-c", _IMPORT.format(name=name)]
    return float(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


def loaded(args: argparse.Namespace) -> list[float]:
    """Processor time of `from_pretrained`, everything imported already."""
    from longvid import LongVideoPipeline
    from longvid.pipelines.art_v import ARTVPipeline  # noqa: F401  loaded by its name below

    times = []
    for run in range(args.warmup + args.repeats):
        begin = time.process_time()
        LongVideoPipeline.from_pretrained("longvid/art-v-tiny")
        if run >= args.warmup:
            times.append(time.process_time() - begin)
    return times


if __name__ == "__main__":
    main()
