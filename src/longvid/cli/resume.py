"""`longvid resume`: go on with a run that was stopped, in whatever way."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import Parser
from longvid.cli.run_options import add_run_arguments

EXAMPLES = """\
examples:
  longvid resume runs/tiger
  longvid resume runs/tiger --model /models/moved-here
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid resume`."""
    parser = Parser(prog=prog, description=f"longvid resume: {summary}.", epilog=EXAMPLES)
    add_run_arguments(parser)
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Make what is missing."""
    from longvid.cli.run_job import load_run_model, report, work
    from longvid.runs import Run

    parser.check_no_rest(rest)
    made = Run(arguments.run)
    if made.complete:
        report(made, arguments)
        return 0
    with Interrupts() as interrupts:
        pipe = load_run_model(made, arguments)
        different = arguments.allow_different
        return work(
            made,
            lambda watcher: made.resume(pipe, allow_different=different, watcher=watcher),
            interrupts,
            arguments,
        )
