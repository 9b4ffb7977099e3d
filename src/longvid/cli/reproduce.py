"""`longvid reproduce NAME`: an ablation of a paper on the built-in world, measured resumably and written as a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import Parser, at_least, nearest, say

ABOUT = """\
Every measurement is appended to OUTPUT/NAME.jsonl when it is made, and never made twice: a command that
was stopped goes on when it is started again, and more prompts or seeds add what is missing. OUTPUT/NAME.md
is the page with verdict, figure and table. Some experiments train models first; they lie in --models.
"""
EXAMPLES = """\
examples:
  longvid reproduce --list
  longvid reproduce art-v-mask-strength
  longvid reproduce harivo-mg-scale --model models/my-harivo --output pages
  longvid reproduce art-v-mask --seeds 3 --training-steps 2000 --device cuda
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid reproduce`."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} NAME [options]\n       {prog} --list",
        description=f"longvid reproduce: {summary}.\n\n{ABOUT}",
        epilog=EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="which experiment; see --list")
    parser.add_argument("--list", action="store_true", help="print the experiments and stop")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default="docs/reproductions", help="default: docs/reproductions"
    )
    parser.add_argument("--prompts", metavar="N", type=at_least(1), help="default: as the experiment says")
    parser.add_argument("--seeds", metavar="N", type=at_least(1), help="of each prompt, and of each training")
    parser.add_argument("--frames", metavar="N", type=at_least(1), help="length of every video")
    parser.add_argument("--batch-size", metavar="N", type=at_least(1), help="videos that are made together")
    parser.add_argument("--training-steps", metavar="N", type=at_least(1), help="of every model that is trained")
    parser.add_argument("--model", metavar="NAME", help="measure this model: a bundled name, folder or hub id")
    parser.add_argument(
        "--models", metavar="DIR", default="models/reproduce", help="of what is trained; default: models/reproduce"
    )
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is one")
    parser.add_argument("--quiet", action="store_true", help="no lines about the progress")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Find the experiment, check everything, measure and write."""
    from longvid.reproduce import EXPERIMENTS

    parser.check_no_rest(rest)
    if arguments.list:
        return _list()
    if arguments.name is None:
        parser.error("expected the NAME of an experiment; --list prints them")
    if arguments.name not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        parser.error(f"unknown experiment {arguments.name!r}{nearest(arguments.name, EXPERIMENTS)} (known: {known})")
    experiment = EXPERIMENTS[arguments.name]
    if arguments.training_steps and experiment.size.training_steps is None:
        parser.error(f"--training-steps: {experiment.name} trains nothing")
    if arguments.model and experiment.model is None:
        parser.error(f"--model: {experiment.name} measures models that it trains itself")
    given = {
        "num_prompts": arguments.prompts,
        "num_seeds": arguments.seeds,
        "num_frames": arguments.frames,
        "batch_size": arguments.batch_size,
        "training_steps": arguments.training_steps,
    }
    size = replace(experiment.size, **{key: value for key, value in given.items() if value is not None})
    from longvid.reproduce.run import writable_folder

    writable_folder(arguments.output)
    return _measure(experiment, size, arguments)


def _list() -> int:
    from longvid.reproduce import EXPERIMENTS

    width = max(map(len, EXPERIMENTS))
    for name, experiment in EXPERIMENTS.items():
        size = experiment.size
        trains = f", trains {size.num_seeds} × {size.training_steps} steps per model" if size.training_steps else ""
        print(f"{name:<{width}}  {experiment.title}")
        print(f"{'':<{width}}  {experiment.source}")
        made = f"{len(experiment.variants)} variants, {size.videos}"
        minutes = experiment.cpu_minutes
        takes = f"; about {minutes:.0f} minutes of one CPU core" if minutes else ""
        print(f"{'':<{width}}  {made}, {size.num_frames} frames{trains}{takes}\n")
    return 0


def _measure(experiment, size, arguments: argparse.Namespace) -> int:
    import json

    from longvid.cli.load import quiet_libraries, usable_device
    from longvid.reproduce import Setup, reproduce

    def tell(message: str) -> None:
        say(message, quiet=arguments.quiet)

    quiet_libraries()
    setup = Setup(size, Path(arguments.models), usable_device(arguments.device), tell, arguments.model)
    with Interrupts():
        page = reproduce(experiment, arguments.output, setup)
    numbers = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    print("\n".join([numbers["summary"], *(verdict["sentence"] for verdict in numbers["verdicts"])]))
    say(f"{page}: the page; {page.with_suffix('.jsonl')}: every measurement", quiet=arguments.quiet)
    return 0
