"""Find out before any work starts whether what a run will write can be written."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvid.cli.parser import nearest
from longvid.cli.request import OutputSettings

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".mkv")
IMAGE_SUFFIXES = (".png",)


@dataclass(frozen=True)
class OutputPaths:
    """Files of one run; `video` without a suffix is a folder of PNGs."""

    video: Path
    record: Path
    contact_sheet: Path | None = None
    masks: Path | None = None

    def named(self) -> dict[str, Path | None]:
        """The files by the options that name them."""
        return {
            "--output": self.video,
            "--contact-sheet": self.contact_sheet,
            "--show-masks": self.masks,
            "the record of the run": self.record,
        }


def check_outputs(settings: OutputSettings) -> OutputPaths:
    """The paths of a run, each proved writable; missing folders above them are made.

    Raises:
        ValueError: for an unknown suffix, a path that cannot be written, two outputs in one place, no free name for
            the record, or a file that exists where `overwrite` is off.
    """
    video = Path(settings.path) if settings.path else free_name(Path("video.mp4"))
    is_folder = not video.suffix or str(settings.path).endswith(("/", "\\"))
    paths = OutputPaths(
        video=video,
        record=record_path(video, is_folder=is_folder),
        contact_sheet=Path(settings.contact_sheet) if settings.contact_sheet else None,
        masks=Path(settings.show_masks) if settings.show_masks else None,
    )
    if is_folder:
        _check_folder(video, overwrite=settings.overwrite)
    else:
        _check_file(video, VIDEO_SUFFIXES, "--output", overwrite=settings.overwrite)
    if paths.contact_sheet:
        _check_file(paths.contact_sheet, IMAGE_SUFFIXES, "--contact-sheet", overwrite=settings.overwrite)
    if paths.masks:
        _check_file(paths.masks, IMAGE_SUFFIXES + VIDEO_SUFFIXES, "--show-masks", overwrite=settings.overwrite)
    _check_file(paths.record, (".json",), "the record of the run", overwrite=settings.overwrite)
    given = [path.resolve() for path in (video, paths.contact_sheet, paths.masks) if path]
    if len(set(given)) < len(given):
        raise ValueError(f"expected a file of its own for each output; got {', '.join(map(str, given))}")
    return paths


def check_sources_kept(outputs: Mapping[str, Path | None], sources: Mapping[str, str | None]) -> None:
    """Check that no output takes the place of what the run reads, or lands among its frames.

    Args:
        outputs: Files and folders that will be written, by the options that name them.
        sources: Files and folders that will be read, by what they are.

    Raises:
        ValueError: naming the output.
    """
    for option, output in outputs.items():
        for what, source in sources.items():
            if output is not None and source is not None and (harm := _harm(output, Path(source), what)):
                raise ValueError(f"{option}: {str(output)!r} {harm}; choose another name")


def record_names(video: Path, *, is_folder: bool) -> tuple[Path, Path]:
    """Where the record of a video may lie: `demo.json`, or `demo.webm.json` where that is another video's."""
    if is_folder:
        return video.with_name(f"{video.name}.json"), video.with_name(f"{video.name}.png.json")
    return video.with_suffix(".json"), video.with_name(f"{video.name}.json")


def record_path(video: Path, *, is_folder: bool) -> Path:
    """Where the record of a video goes: over its own one, else to the first name that costs nobody anything.

    Raises:
        ValueError: if both names are taken.
    """
    names = record_names(video, is_folder=is_folder)
    for name in names:
        if name.exists() and _recorded_name(name) == video.name:
            return name
    for name in names:
        if not name.exists() or ((other := _recorded_name(name)) and not name.with_name(other).exists()):
            return name
    raise ValueError(
        f"--output: the record of {str(video)!r} would replace {names[0].name} or {names[1].name}, which belong to other"
        " files; choose another name"
    )


def free_name(path: Path) -> Path:
    """`path`, or `name-2`, `name-3`, ... when it or its record exists."""
    for number in itertools.count(2):
        if not path.exists() and not path.with_suffix(".json").exists():
            return path
        path = path.with_name(f"{path.stem.removesuffix(f'-{number - 1}')}-{number}{path.suffix}")
    raise AssertionError("itertools.count does not end")


def _recorded_name(record: Path) -> str | None:
    """The name of the video that a record is of; None for a file that is no record."""
    try:
        values: Any = json.loads(record.read_text(encoding="utf-8"))
        output = values.get("output") or values["settings"]["output"]  # only the latter until the run has ended
        return Path(output["path"] or record.with_suffix(".mp4")).name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _harm(output: Path, source: Path, what: str) -> str | None:
    """What an output would do to a source, in words."""
    if _is_same(output, source):
        return f"is the {what} itself"
    if output.is_dir() and _is_same(output, source.parent):
        from longvid.video.containers import numbered_frames

        if source.name in {frame.name for frame in numbered_frames(output)}:  # these are deleted for the new ones
            return f"is the folder of the {what}"
    if source.is_dir() and _is_same(output.parent, source) and output.suffix.lower() in IMAGE_SUFFIXES:
        return f"would be a frame of the {what}"
    return None


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)  # links, and file systems that do not tell A from a
    except OSError:
        return path.resolve() == other.resolve()


def _check_file(path: Path, suffixes: tuple[str, ...], what: str, *, overwrite: bool) -> None:
    if path.suffix.lower() not in suffixes:
        hint = nearest(path.suffix, suffixes)
        raise ValueError(f"{what}: expected a name that ends in {', '.join(suffixes)}; got {str(path)!r}{hint}")
    if path.is_dir():
        raise ValueError(f"{what}: {str(path)!r} is a folder, not a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{what}: {str(path)!r} exists; choose another name or leave out --no-overwrite")
    _make_folder(path.parent, what)
    if path.exists():
        try:
            path.open("ab").close()
        except OSError as error:
            raise ValueError(f"{what}: cannot write {str(path)!r}: {error.strerror}") from error


def _check_folder(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"--output: {str(path)!r} is a file; a name without a suffix means a folder of PNGs")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise ValueError(f"--output: {str(path)!r} is not empty; choose another name or leave out --no-overwrite")
    existed = path.is_dir()
    _make_folder(path, "--output")
    if not existed:
        path.rmdir()


def _make_folder(folder: Path, what: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{what}: cannot write into {str(folder)!r}: {error.strerror}") from error
