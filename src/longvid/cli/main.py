"""`longvid COMMAND ...`: finds the command, runs it, and turns every failure into one clear line and an exit code."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from longvid import __version__
from longvid.cli.parser import Parser, nearest

COMMANDS = {
    "generate": "make a video from a prompt, an image or a video",
    "resume": "go on with a run that was stopped",
    "reroll": "make one chunk of a run again, with another seed",
    "extend": "make the video of a run longer",
    "branch": "begin another run with the first chunks of one, without copying them",
    "enhance": "make the frames of a video anew with a video model, at any length",
    "models": "list the models: what is bundled, what the papers describe",
    "info": "show versions, devices and folders, for bug reports",
    "evaluate": "measure videos, or a model on the built-in world",
    "benchmark-set": "make and measure a video of every prompt of a set",
    "reproduce": "run an ablation of a paper on the built-in world and write its page",
    "train": "train a model, or the tiny models that ship",
    "convert": "make a pipeline folder of the official StreamingT2V checkpoint",
}

EXAMPLES = """\
examples:
  longvid generate "a red circle moving right on a blue checkered background" --num-frames 64 --output demo.mp4
  longvid models
  longvid generate --help

exit codes: 0 done, 1 error, 2 wrong usage, 130 stopped by Ctrl-C
"""

OK, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's own) and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or bool(os.environ.get("LONGVID_DEBUG"))
    try:
        return _dispatch([word for word in argv if word != "--debug"], debug)
    except SystemExit as stop:  # argparse: --help, --version and usage errors
        return stop.code if isinstance(stop.code, int) else ERROR
    except BrokenPipeError:  # `longvid models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt as stop:
        print("longvid: stopped", file=sys.stderr)
        return getattr(stop, "exit_code", INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"longvid: error: {describe(error)}", file=sys.stderr)
        return ERROR


def describe(error: BaseException) -> str:
    """One line that says what went wrong; what the library did not foresee keeps its type and points to --debug."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text:
        return text
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, (ImportError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text or 'no message'} (add --debug for the traceback)"


def _dispatch(argv: list[str], debug: bool) -> int:
    parser = _parser()
    if not argv:
        parser.print_help()
        return USAGE
    name = argv[0]
    if name.startswith("-"):
        _, unknown = parser.parse_known_args(argv)
        parser.check_unknown(unknown)
    if name not in COMMANDS:
        parser.error(f"unknown command {name!r}{nearest(name, COMMANDS)}")
    command = importlib.import_module(f"longvid.cli.{name.replace('-', '_')}")
    command_parser = command.make_parser(f"longvid {name}", COMMANDS[name])
    command_parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    arguments, rest = command_parser.parse_known_args(argv[1:])
    arguments.debug, arguments.command = debug, shlex.join(["longvid", *argv])
    return command.run(command_parser, arguments, rest)


def _parser() -> Parser:
    commands = "\n".join(f"  {name:<13} {what}" for name, what in COMMANDS.items())
    parser = Parser(
        prog="longvid",
        usage="longvid COMMAND [options]",
        description=f"Long videos from text, with autoregressive diffusion.\n\ncommands:\n{commands}",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"longvid {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
