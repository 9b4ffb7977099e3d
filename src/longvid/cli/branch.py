"""`longvid branch`: begin another run with the first chunks of one, without copying them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from longvid.cli.parser import Parser, at_least, say
from longvid.cli.run_options import add_run_arguments

EXAMPLES = """\
examples:
  longvid branch runs/tiger --from-chunk 12 --run-dir runs/tiger-sleeps --prompt "the tiger sleeps"
  longvid resume runs/tiger-sleeps

The new run shares the chunks before 12 and makes all others itself. Either run can be deleted without harm to the other.
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid branch`."""
    parser = Parser(prog=prog, description=f"longvid branch: {summary}.", epilog=EXAMPLES)
    add_run_arguments(parser, model=False)
    parser.add_argument(
        "--from-chunk", metavar="K", type=at_least(0), required=True, help="first chunk that the new run makes itself"
    )
    parser.add_argument("--run-dir", metavar="FOLDER", required=True, help="folder of the new run")
    parser.add_argument("--seed", metavar="S", type=at_least(0), help="seed of what it makes (default: as before)")
    parser.add_argument("--prompt", metavar="TEXT", help="prompt of what it makes (default: as before)")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Begin the new run; it is made by `longvid resume`."""
    from longvid.cli.run_job import report
    from longvid.runs import Run

    parser.check_no_rest(rest)
    old = Run(arguments.run)
    new = old.branch(arguments.run_dir, from_chunk=arguments.from_chunk, seed=arguments.seed, prompt=arguments.prompt)
    if not old.shared:
        say("the shared chunks were copied: this file system has no hard links to them", quiet=arguments.quiet)
    report(new, arguments)
    return 0
