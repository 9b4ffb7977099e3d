"""`longvid extend`: make the video of a run longer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import Parser, at_least
from longvid.cli.run_options import add_run_arguments

EXAMPLES = """\
examples:
  longvid extend runs/tiger --num-frames 2400
  longvid extend runs/tiger --num-frames 2400 --prompt "the tiger sleeps"
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid extend`."""
    parser = Parser(prog=prog, description=f"longvid extend: {summary}.", epilog=EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument(
        "--num-frames", metavar="N", type=at_least(1), required=True, help="length of the whole longer video"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="what the new frames show (default: the last prompt goes on)")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Make the new frames."""
    from longvid.cli.run_job import load_run_model, work
    from longvid.runs import Run

    parser.check_no_rest(rest)
    made = Run(arguments.run)
    if arguments.num_frames <= made.num_frames:
        raise ValueError(f"--num-frames must be more than the {made.num_frames} of the run; got {arguments.num_frames}")
    with Interrupts() as interrupts:
        pipe = load_run_model(made, arguments)
        return work(
            made,
            lambda watcher: made.extend(
                pipe,
                num_frames=arguments.num_frames,
                prompt=arguments.prompt,
                allow_different=arguments.allow_different,
                watcher=watcher,
            ),
            interrupts,
            arguments,
            total=arguments.num_frames - made.num_made,
        )
