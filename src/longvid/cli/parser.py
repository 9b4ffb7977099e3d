"""An argument parser that is pleasant to misuse: errors are one line and name the nearest word that is known."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word closest to `word`, or an empty string when none is close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` without abbreviations, with raw help texts and errors of one line (exit code 2)."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print `message` and where to read more, and leave with exit code 2."""
        self.exit(2, f"longvid: error: {message}\nRun `{self.prog} --help` for what it takes.\n")

    def check_unknown(self, words: Sequence[str]) -> None:
        """Leave with an error if `words`, which no argument took, hold an option; it names the nearest one."""
        for word in words:
            if word.startswith("-") and word != "-":
                option = word.split("=")[0]
                self.error(f"unknown option {option!r}{nearest(option, self._option_string_actions)}")

    def check_no_rest(self, words: Sequence[str]) -> None:
        """Leave with an error if there are words that no argument took."""
        self.check_unknown(words)
        if words:
            self.error(f"expected no further words; got {words[0]!r}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wide enough for the option and its value in one column, the explanation in the next."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return ", ".join(action.option_strings) + f" {value}"


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """An argparse `type` that takes only the words in `known` and names the nearest one otherwise."""

    def check(word: str) -> str:
        if word not in known:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}; got {word!r}{nearest(word, known)}")
        return word

    return check


def at_least(minimum: int) -> Callable[[str], int]:
    """An argparse `type` for whole numbers from `minimum` on."""

    def check(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = None
        if number is None or number < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {minimum}; got {word!r}")
        return number

    return check


def guidance(word: str) -> float | dict[str, Any]:
    """An argparse `type` for guidance: one scale, HIGH:LOW, or FROM:TO:LOW, the fields of a `GuidanceSchedule`."""
    try:
        scales = [float(part) for part in word.split(":")]
    except ValueError:
        scales = []
    if len(scales) == 1:
        return scales[0]
    if len(scales) not in (2, 3):
        raise argparse.ArgumentTypeError(f"expected a scale, HIGH:LOW or FROM:TO:LOW, such as 12.5:7.5; got {word!r}")
    return {"high": scales[0] if len(scales) == 2 else scales[:2], "low": scales[-1]}


def say(message: str, *, quiet: bool = False) -> None:
    """Print a line for the person who waits: on stderr, so that stdout holds results only."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one `longvid: warning: ...` line on stderr."""
    print(f"longvid: warning: {message}", file=sys.stderr, flush=True)
