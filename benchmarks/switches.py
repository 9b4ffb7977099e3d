"""What each switch gives: the time of an evaluation of every network with it, as a ratio to that without, taken in turns in
one run, and how far the results differ. On a CPU it is processor time, which other programs do not count into."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import models
from clocks import wall_clock
from common import DTYPES, Report, parser, picture_size, settled, spread
from longvid.modules.temporal_conv import flatten_temporal_convs
from longvid.pipelines.optimization import STEP_NETWORKS, lay_out
from roofline import evaluations

Switch = Callable[[Any, bool], int]
"""Switches something of a pipeline on or off, and says how many layers it concerns."""


def _step_networks(pipe: Any) -> list[nn.Module]:
    return [part for name, part in pipe.components.items() if name in STEP_NETWORKS and part is not None]


def channels_last(pipe: Any, on: bool) -> int:
    """Convolutions with the channels of their weights last."""
    return sum(lay_out(part, on) for part in (*_step_networks(pipe), pipe.vae))


def temporal_convs(pipe: Any, on: bool) -> int:
    """Convolutions over time in their 2-D form."""
    return sum(flatten_temporal_convs(network, on) for network in _step_networks(pipe))


def attention(backend: str) -> Switch:
    """Attention by a backend, against the stock processors."""
    return lambda pipe, on: pipe.set_attention_backend(backend if on else None)


SWITCHES: dict[str, Switch] = {"channels-last": channels_last, "temporal-convs": temporal_convs}
OF_THE_VAE = {"channels-last"}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and report."""
    options = parser(__doc__, repeats=10, warmup=2)
    options.add_argument("--switches", nargs="*", choices=SWITCHES, default=[*SWITCHES])
    options.add_argument(
        "--attention", nargs="*", default=["native"], help="backends, as pipe.set_attention_backend has them"
    )
    options.add_argument("--size", type=picture_size, help="256 or 1280x720; what the networks are made for")
    options.add_argument("--dtype", choices=DTYPES, default="float32")
    options.add_argument(
        "--branches", type=int, default=2, help="guidance branches in one batch; twice as many for ART-V"
    )
    args = settled(options.parse_args(argv))
    switches = {name: SWITCHES[name] for name in args.switches}
    switches |= {f"attention {backend}": attention(backend) for backend in args.attention}
    report = Report("switches", args)
    for method in args.methods:
        pipe = models.build(method, args.models, device=args.device, dtype=DTYPES[args.dtype])
        for name, switch in switches.items():
            _measure(pipe, method, name, switch, args, report)
    return report.finish()


@torch.no_grad()
def _measure(pipe: Any, method: str, name: str, switch: Switch, args: argparse.Namespace, report: Report) -> None:
    try:
        count = switch(pipe, True)
    except ValueError as error:
        return report.note(f"{method}, {name}: {error}")
    finally:
        switch(pipe, False)
    if not count:
        return report.note(f"{method}, {name}: there is no layer to switch")
    for network, work, _ in evaluations(pipe, method, args):
        if network.startswith("vae") and name not in OF_THE_VAE:
            continue
        report.add(what=f"{method}: {network}", switch=name, **compared(pipe, switch, work, args))


def compared(pipe: Any, switch: Switch, work: Callable[[], Any], args: argparse.Namespace) -> dict[str, Any]:
    """An evaluation without and with a switch, in turns."""
    clock = wall_clock(args.device) if args.device.startswith("cuda") else time.process_time
    without, ratios, difference = [], [], 0.0
    for run in range(args.warmup + args.repeats):
        times, results = [], []
        for on in (False, True):
            switch(pipe, on)
            begin = clock()
            results.append(_tensor(work()))
            times.append(clock() - begin)
        switch(pipe, False)
        if run >= args.warmup:
            without.append(1000 * times[0])
            ratios.append(times[1] / times[0])
            difference = max(difference, (results[1] - results[0]).abs().max().item())
    return {"ms without": spread(without), "ratio": spread(ratios), "largest difference": f"{difference:.0e}"}


def _tensor(result: Any) -> torch.Tensor:
    """The first tensor of what a network returns."""
    while not isinstance(result, torch.Tensor):
        result = result.to_tuple()[0] if hasattr(result, "to_tuple") else next(iter(result))
    return result.float()


if __name__ == "__main__":
    main()
