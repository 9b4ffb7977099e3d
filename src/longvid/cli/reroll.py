"""`longvid reroll`: make one chunk of a run again, with another seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import Parser, at_least
from longvid.cli.run_options import add_run_arguments

EXAMPLES = """\
examples:
  longvid reroll runs/tiger --chunk 12 --seed 7
  longvid reroll runs/tiger --chunk 12 --seed 7 --prompt "the tiger yawns" --regenerate-rest

The chunks and their frames are listed in runs/tiger/run.json. To keep both versions, branch first: longvid branch --help
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid reroll`."""
    parser = Parser(prog=prog, description=f"longvid reroll: {summary}.", epilog=EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("--chunk", metavar="K", type=at_least(0), required=True, help="its number, from 0")
    parser.add_argument("--seed", metavar="S", type=at_least(0), required=True, help="its new seed")
    parser.add_argument("--prompt", metavar="TEXT", help="its new prompt (default: as before)")
    rest = parser.add_mutually_exclusive_group()
    rest.add_argument(
        "--keep-rest", action="store_true", default=True, help="leave the chunks behind it as they are (default)"
    )
    rest.add_argument(
        "--regenerate-rest", dest="keep_rest", action="store_false", help="make them again, so that they continue it"
    )
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Make the chunk again."""
    from longvid.cli.run_job import load_run_model, work
    from longvid.runs import Run

    parser.check_no_rest(rest)
    made, chunk = Run(arguments.run), arguments.chunk
    chunks = made.manifest.chunks
    if chunk >= len(chunks):
        raise ValueError(f"--chunk must be one of the {len(chunks)} that are made, from 0; got {chunk}")
    stop = chunks[chunk].stop if arguments.keep_rest else made.num_frames
    with Interrupts() as interrupts:
        pipe = load_run_model(made, arguments)
        return work(
            made,
            lambda watcher: made.reroll(
                pipe,
                chunk=chunk,
                seed=arguments.seed,
                prompt=arguments.prompt,
                keep_rest=arguments.keep_rest,
                allow_different=arguments.allow_different,
                watcher=watcher,
            ),
            interrupts,
            arguments,
            total=stop - chunks[chunk].start,
        )
