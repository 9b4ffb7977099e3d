"""`longvid evaluate`: measure videos, or make videos of prompts that training never saw and read them back."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from longvid.cli import evaluate_videos
from longvid.cli.evaluate_videos import check_writable
from longvid.cli.load import num_launched
from longvid.cli.parser import Parser, at_least, one_of, say
from longvid.cli.request import DEFAULT_MODEL

if TYPE_CHECKING:
    from longvid.samplers.processes import LaunchedProcesses, Processes

ABOUT = """\
With paths: every metric that can be computed here, of each video (a file, a folder of PNGs, a run folder,
or a folder of videos), side by side. A run folder knows its prompt and its chunk borders, and so does the
record that `longvid generate` leaves beside a video.

With --sprites: a model on the built-in world. The judge reads colour, shape, background, motion and
identity from the pixels of videos of held-out prompts. Beside every figure stand the number it was
measured on, its 95 % interval, the bar, the level of chance, and what the judge says of drawn videos and
of the model's own reconstruction of them. Processes that `accelerate launch` starts share the prompts.
"""
EXAMPLES = """\
examples:
  longvid evaluate demo.mp4
  longvid evaluate first.mp4 second.mp4 --html report.html --json report.json
  longvid evaluate frames/ --metrics mawe,seams --borders 16:8
  longvid evaluate frames/ --metrics lpips lpips.backbone=alexnet-owt-7be5be79.pth lpips.linear=alex.pth
  longvid evaluate --sprites
  longvid evaluate --sprites longvid/art-v-tiny --num-prompts 200 --long-prompts 40 --json report.json
  longvid evaluate --sprites longvid/base-tiny --part image
  longvid evaluate --sprites my-model/ --part vae
"""
SPRITE_OPTIONS = ("part", "num_prompts", "num_frames", "long_prompts", "long_frames", "batch_size", "seed")
VIDEO_OPTIONS = ("prompt", "metrics", "borders", "flow", "flow_weights", "flow_size", "html")
PARTS = {"video": DEFAULT_MODEL, "image": "longvid/base-tiny", "vae": DEFAULT_MODEL}
IMAGE_OPTIONS = {"num_inference_steps": 25, "guidance_scale": 5.0}


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid evaluate`."""
    parser = Parser(prog=prog, description=f"longvid evaluate: {summary}.\n\n{ABOUT}", epilog=EXAMPLES)
    parser.add_argument(
        "videos",
        metavar="VIDEO",
        nargs="*",
        help="a file, a folder of PNGs, or a folder of videos; METRIC.OPTION=VALUE is for that metric",
    )
    evaluate_videos.add_options(parser)
    parser.add_argument(
        "--sprites", metavar="MODEL", nargs="?", const="", help=f"default: {DEFAULT_MODEL}, for images {PARTS['image']}"
    )
    parser.add_argument(
        "--part",
        type=one_of(tuple(PARTS)),
        default="video",
        help="video (default), image (of a Stable Diffusion model) or vae, the autoencoder",
    )
    parser.add_argument("--num-prompts", metavar="N", type=at_least(1), default=200, help="default: 200")
    parser.add_argument("--num-frames", metavar="N", type=at_least(16), default=64, help="default: 64")
    parser.add_argument("--long-prompts", metavar="N", type=at_least(0), default=0, help="as many long videos as well")
    parser.add_argument("--long-frames", metavar="N", type=at_least(16), default=256, help="default: 256")
    parser.add_argument(
        "--batch-size", metavar="N", type=at_least(1), default=8, help="videos side by side; default: 8"
    )
    parser.add_argument("--seed", metavar="S", type=at_least(0), default=0, help="default: 0")
    parser.add_argument("--device", metavar="NAME", default=None, help="default: cuda where there is one")
    parser.add_argument("--json", metavar="FILE", help="write the report, every prompt included, to a file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Measure, print the table, write the report."""
    parser.check_unknown(rest)
    arguments.videos += rest  # words behind the options
    if arguments.sprites is None and not arguments.videos:
        parser.error("expected videos, or --sprites [MODEL], the built-in world and the model to measure")
    if arguments.sprites is not None and arguments.videos:
        parser.error(f"expected either videos or --sprites; got both, {arguments.videos[0]!r} among the videos")
    _check_options(parser, arguments)
    if arguments.videos:
        return evaluate_videos.run(arguments)
    arguments.sprites = arguments.sprites or PARTS[arguments.part]
    if arguments.json:
        check_writable(Path(arguments.json), "--json")
    from longvid.pipelines.sources import local_source

    local_source(arguments.sprites)
    if num_launched() == 1:
        return _report(arguments)
    if arguments.part != "video":
        parser.error(f"--part {arguments.part} is measured by one process; got {num_launched()}")
    from longvid.cli.together import together

    return together(partial(_take_part, arguments), device=arguments.device, debug=arguments.debug)


def _report(arguments: argparse.Namespace, processes: Processes | None = None) -> int:
    """Measure, and let the main process print and write."""
    report = _measure(arguments, processes)
    if processes is not None and not processes.is_main:
        return 0
    from longvid.sprites.report import format_report

    print(format_report(report))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        say(f"{arguments.json}: the whole report", quiet=arguments.quiet)
    return 0


def _take_part(arguments: argparse.Namespace, processes: LaunchedProcesses) -> int:
    """The share of one of the processes that `accelerate launch` started: every n-th batch, on its own device."""
    arguments.device = str(processes.device)
    return _report(arguments, processes)


def _measure(arguments: argparse.Namespace, processes: Processes | None) -> dict[str, Any]:
    from longvid.cli.load import load_pipeline, quiet_libraries
    from longvid.sprites.evaluate import evaluate_pipeline, evaluate_vae

    if not arguments.debug:
        quiet_libraries()
    say(f"loading {arguments.sprites} ...", quiet=arguments.quiet)
    if arguments.part == "image":
        return _measure_images(arguments)
    pipe = load_pipeline(arguments.sprites, device=arguments.device)
    if arguments.part == "vae":
        report = evaluate_vae(pipe.vae, seed=arguments.seed)
    else:
        with _Bar(quiet=arguments.quiet) as bar:
            report = evaluate_pipeline(
                pipe,
                num_prompts=arguments.num_prompts,
                num_frames=arguments.num_frames,
                long_prompts=min(arguments.long_prompts, arguments.num_prompts),
                long_frames=arguments.long_frames,
                batch_size=arguments.batch_size,
                seed=arguments.seed,
                progress=bar.show,
                spread=None if processes is None else processes.spread,
            )
    return {**report, "model": {"name": arguments.sprites, "fingerprint": pipe.fingerprint()}}


def _measure_images(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from longvid.cli.load import usable_device
    from longvid.pipelines.fingerprint import fingerprint_of
    from longvid.pipelines.image_model import load_image_model
    from longvid.sprites import SIZE
    from longvid.sprites.evaluate import evaluate_t2i

    pipe = cast(Any, load_image_model(arguments.sprites)).to(usable_device(arguments.device))
    pipe.set_progress_bar_config(disable=True)

    def predict_images(prompts: list[str], seed: int) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(1000 * seed + index) for index in range(len(prompts))]
        size = {"height": SIZE, "width": SIZE}
        return pipe(prompts, generator=generators, output_type="pt", **size, **IMAGE_OPTIONS).images.float().cpu()

    with _Bar(quiet=arguments.quiet) as bar:
        report = evaluate_t2i(
            predict_images, num_prompts=arguments.num_prompts, seed=arguments.seed, vae=pipe.vae, progress=bar.show
        )
    settings = report["settings"] | {"call options": IMAGE_OPTIONS}
    parts = {name: fingerprint_of(part) for name, part in sorted(pipe.components.items())}
    model = {"name": arguments.sprites, "fingerprint": parts}
    return {**report, "settings": settings, "model": model}


class _Bar:
    """A progress bar that is told how many of how many prompts are done."""

    def __init__(self, *, quiet: bool):
        from tqdm import tqdm

        self._bar = tqdm(total=1, unit="video", disable=quiet, file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, done: int, total: int) -> None:
        """Move to `done` of `total`."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def _check_options(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuse options that only the other kind of evaluation would use."""
    foreign = VIDEO_OPTIONS if arguments.sprites is not None else SPRITE_OPTIONS
    for name in foreign:
        if getattr(arguments, name) != parser.get_default(name):
            kind = "videos" if foreign is VIDEO_OPTIONS else "--sprites"
            parser.error(f"--{name.replace('_', '-')} goes with {kind} only")
