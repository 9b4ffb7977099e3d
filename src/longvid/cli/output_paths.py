"""Find out before any work starts whether what a run will write can be written."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

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


def check_outputs(settings: OutputSettings) -> OutputPaths:
    """The paths of a run, each proved writable; missing folders above them are made.

    Raises:
        ValueError: for an unknown suffix, a path that cannot be written, two outputs in one place, or a file that
            exists where `overwrite` is off.
    """
    video = Path(settings.path) if settings.path else free_name(Path("video.mp4"))
    is_folder = not video.suffix or str(settings.path).endswith(("/", "\\"))
    paths = OutputPaths(
        video=video,
        record=video.with_name(video.name + ".json") if is_folder else video.with_suffix(".json"),
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


def free_name(path: Path) -> Path:
    """`path`, or `name-2`, `name-3`, ... when it or its record exists."""
    for number in itertools.count(2):
        if not path.exists() and not path.with_suffix(".json").exists():
            return path
        path = path.with_name(f"{path.stem.removesuffix(f'-{number - 1}')}-{number}{path.suffix}")
    raise AssertionError("itertools.count does not end")


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
