"""A file of prompts as planned runs: every line is checked, and has a folder of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longvid.cli.generate import check_sources, settle
from longvid.cli.parser import nearest
from longvid.cli.request import CALL_KEYS, GenerateSettings
from longvid.cli.settings import merge_settings

LINE_KEYS = ("prompt", "seed", "image", "video", "options", *CALL_KEYS)
"""What a line of a .jsonl file may set; all else is the same for every line."""
_NUMBERED = re.compile(r"(\d{4,})(-.*)?", re.ASCII)


@dataclass(frozen=True)
class PlannedRun:
    """One line.

    Attributes:
        number: Which line it is, from 1 on; empty lines do not count.
        source: File and line, for messages.
        settings: What it asks for, with a seed.
        seeded: Whether that seed was given.
        path: Its run folder.
    """

    number: int
    source: str
    settings: GenerateSettings
    seeded: bool
    path: Path


def plan_runs(file: Path, common: GenerateSettings, run_dir: Path) -> list[PlannedRun]:
    """Read a file of prompts and check all of its lines.

    A line without a seed takes the common seed plus its number, counted from 0, or one that is drawn.

    Args:
        file: `.txt` with one prompt on each line, or `.jsonl` with an object of `LINE_KEYS` on each line. Empty lines
            are passed over.
        common: What the lines share; they win over it.
        run_dir: Where the folders of the runs go, by number and first words: `0003-a-red-circle`.

    Raises:
        ValueError: naming the line, if it is none, has an unknown key or a value that cannot be.
    """
    planned = []
    for number, (source, values) in enumerate(_read(file), start=1):
        if values.get("seed") is None and common.seed is not None:
            values["seed"] = common.seed + number - 1
        try:
            settings = _settings(values, common)
        except ValueError as error:
            raise ValueError(f"{source}: {str(error).removeprefix('settings: ')}") from error
        path = run_dir / _name(number, settings.prompt[0])
        planned.append(PlannedRun(number, source, settings, values.get("seed") is not None, path))
    if not planned:
        raise ValueError(f"{file} has no lines; expected at least one prompt")
    _check_numbers(planned, run_dir)
    return planned


def _read(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if file.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"--prompts: expected a .txt or .jsonl file; got {file}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"--prompts: there is no file {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts: cannot read {file}: {error}") from error
    for index, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            source = f"{file}, line {index}"
            yield source, {"prompt": line.strip()} if file.suffix == ".txt" else _parse(line, source)


def _parse(line: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{source}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f'{source}: expected an object such as {{"prompt": "a red circle"}}; got {line.strip()[:80]}')
    for key in values:
        if key not in LINE_KEYS:
            raise ValueError(f"{source}: unknown key {key!r}{nearest(key, LINE_KEYS)}")
    return {key: value for key, value in values.items() if value is not None}


def _settings(values: dict[str, Any], common: GenerateSettings) -> GenerateSettings:
    base = asdict(common)
    options = values.get("options", {})
    if not isinstance(options, dict):
        raise ValueError(f"options must be an object of arguments; got {options!r}")
    settings = merge_settings(GenerateSettings, base=base | values | {"options": base["options"] | options})
    settings = settle(settings)
    if not settings.prompt or not all(text.strip() for text in settings.prompt):
        raise ValueError("expected a prompt")
    if settings.num_frames is not None and settings.num_frames < 1:
        raise ValueError(f"num_frames must be at least 1; got {settings.num_frames}")
    settings.call_arguments()
    check_sources(settings)
    if settings.image is not None and not Path(settings.image).is_file():
        raise ValueError(f"image: there is no file {settings.image}")
    return settings


def _name(number: int, prompt: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:40].strip("-")
    return f"{number:04d}-{words}" if words else f"{number:04d}"


def _check_numbers(planned: list[PlannedRun], run_dir: Path) -> None:
    if (run_dir / "run.json").exists():
        raise ValueError(f"{run_dir} is a run itself; expected a folder for the runs of all lines")
    entries = sorted(run_dir.iterdir()) if run_dir.is_dir() else []
    for entry in entries:
        match = _NUMBERED.fullmatch(entry.name)
        number = int(match[1]) if match else 0
        if 0 < number <= len(planned) and entry.name != (run := planned[number - 1]).path.name:
            raise ValueError(
                f"{run.source}: {entry} was made of another line; lines may be added at the end only: take another"
                " --run-dir, or delete that folder"
            )
