"""The prompts on which the papers measured, as data: `load_prompt_set("harivo")`, or a text file of one's own."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_FIELD = re.compile(r"# (title|source|printed): (.+)")
_CLASS_INDEX = re.compile(r"\d+ ([A-Z][A-Za-z]+)")


@dataclass(frozen=True)
class PromptSet:
    """Prompts in the order of their source.

    Attributes:
        name: Name of the set, or of the file.
        prompts: One text per video, none twice.
        title: What it is, in words.
        source: Where the prompts stand.
        printed: How many of the source's prompts could be read there, such as ``10 of 50``.
    """

    name: str
    prompts: tuple[str, ...]
    title: str = ""
    source: str = ""
    printed: str = ""


def prompt_sets() -> dict[str, Path]:
    """The names of the sets that ship with longvid, and their files."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.txt"))}


def load_prompt_set(name: str | os.PathLike[str]) -> PromptSet:
    """A set that ships, or any text file with one prompt per line.

    Empty lines and lines that start with ``#`` are left out. A file in the form of UCF-101's class index (every line
    ``1 ApplyEyeMakeup``) gives the class names as words, ``Apply Eye Makeup``.

    Args:
        name: A name in :func:`prompt_sets`, or the path of a file that ends in ``.txt``.

    Raises:
        ValueError: if there is no such set or file, it is not UTF-8 text, or it holds no prompt or one prompt twice.
    """
    known = prompt_sets()
    path = known.get(os.fspath(name)) or Path(name)
    if path.suffix != ".txt" or not path.is_file():
        found = difflib.get_close_matches(os.fspath(name), list(known), n=1, cutoff=0.5)
        hint = f"; did you mean {found[0]!r}?" if found else ""
        raise ValueError(f"expected one of {', '.join(known)} or a .txt file; got {os.fspath(name)!r}{hint}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8") from error
    fields = {found[1]: found[2] for line in lines if (found := _FIELD.fullmatch(line))}
    prompts = _class_names([line for line in lines if line and not line.startswith("#")])
    twice = next((prompt for prompt in prompts if prompts.count(prompt) > 1), None)
    if not prompts or twice:
        raise ValueError(f"{path} holds " + (f"the prompt {twice!r} twice" if prompts else "no prompts"))
    return PromptSet(path.stem, tuple(prompts), **fields)


def _class_names(lines: list[str]) -> list[str]:
    classes = [_CLASS_INDEX.fullmatch(line) for line in lines]
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", found[1]) if all(classes) and found else line
            for line, found in zip(lines, classes, strict=True)]  # fmt: skip
