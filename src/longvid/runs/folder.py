"""The files of a run folder: their names, which of them are whole, and which a stopped process left behind."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from longvid.runs import inputs
from longvid.runs.lock import LOCK
from longvid.runs.manifest import NAME, ChunkRecord, Manifest
from longvid.runs.options import RunOptions

CHUNKS, FRAMES, STATES = "chunks", "frames", "states"
FRAMES_SUFFIX, STATE_SUFFIX, STEPS_SUFFIX = ".mkv", ".safetensors", ".steps"
_OURS = re.compile(r"\.?\d{6,}-\d+\.[\w.]+", re.ASCII)  # also what a process that died was writing
_WRITTEN = rf"{re.escape(NAME)}|video\.\w+|{re.escape(inputs.NAME)}|preview\.\w+"
_PARTIAL = re.compile(rf"\.({_WRITTEN})\.\d+\.partial(\.mp4)?", re.ASCII)


class RunFolder:
    """Where the files of a run lie.

    Args:
        path: The folder.
        options: What is kept in it, and how.
    """

    def __init__(self, path: Path, options: RunOptions):
        self.path, self.options = path, options
        self.suffix = options.suffix
        self._rooms = (CHUNKS, FRAMES, STATES) if options.frames_apart else (CHUNKS, STATES)

    @property
    def video(self) -> Path:
        """The video."""
        return self.path / f"video{self.suffix}"

    @property
    def inputs(self) -> Path:
        """Pictures and tensors of the request."""
        return self.path / inputs.NAME

    def chunk(self, index: int, record: ChunkRecord) -> Path:
        """The video file of a chunk."""
        return self.path / CHUNKS / f"{index:06d}-{record.take}{self.suffix}"

    def frames(self, index: int, record: ChunkRecord) -> Path:
        """The frames of a chunk as they were made, where the run keeps them apart."""
        return self.path / FRAMES / f"{index:06d}-{record.take}{FRAMES_SUFFIX}"

    def state(self, index: int, record: ChunkRecord) -> Path:
        """The state behind a chunk."""
        return self.path / STATES / f"{index:06d}-{record.take}{STATE_SUFFIX}"

    def steps(self, index: int, take: int, different: Sequence[str]) -> Path:
        """What is kept of a chunk that is under way, where its window is a whole video.

        Steps of another model or machine, as `different` tells, lie beside those of the run's own.
        """
        mark = f".{hashlib.sha256(repr(list(different)).encode()).hexdigest()[:8]}" if different else ""
        return self.path / STATES / f"{index:06d}-{take}{mark}{STEPS_SUFFIX}"

    def steps_under_way(self, index: int) -> set[Path]:
        """The files of steps that there are of a chunk's first take, whatever model they are of."""
        found = (self.path / STATES).glob(f"{index:06d}-1.*")
        return {path for path in found if path.suffix == STEPS_SUFFIX and not path.is_symlink()}

    def files(self, index: int, record: ChunkRecord) -> list[Path]:
        """All files of a chunk."""
        apart = [self.frames(index, record)] if record.frames_sha256 else []
        behind = [self.state(index, record)] if record.state_sha256 else []
        return [self.chunk(index, record), *apart, *behind]

    def create(self) -> None:
        """Make the folder and those in it.

        Raises:
            ValueError: if something is there already, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if (self.path / NAME).exists():
                raise ValueError(f"{self.path} holds a run already: go on with `longvid resume {self.path}`")
            own = {LOCK, *self._rooms, inputs.NAME}
            if not all(entry.name in own or _PARTIAL.fullmatch(entry.name) for entry in self.path.iterdir()):
                raise ValueError(f"{self.path} is not empty; a run takes a folder of its own")
            for name in self._rooms:
                (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make the run folder {self.path}: {error.strerror}") from error
        self.check_own()

    def check_own(self) -> None:
        """Refuse links where the run's own files and folders should be, which lead out of it.

        Raises:
            ValueError: naming the link.
        """
        for name in (NAME, LOCK, *self._rooms, inputs.NAME, self.video.name):
            if (self.path / name).is_symlink():
                raise ValueError(f"{self.path / name} is a link; the files of a run lie in its own folder")
        for name in self._rooms:
            if not (self.path / name).is_dir():
                raise ValueError(f"{self.path} is damaged: it has no folder {name!r}")

    def clean(self, manifest: Manifest) -> None:
        """Delete what the manifest does not know: files of a process that was stopped, chunks that were made again.

        The steps of the chunk that comes next stay.
        """
        known = {path for index, record in enumerate(manifest.chunks) for path in self.files(index, record)}
        known |= self.steps_under_way(len(manifest.chunks))
        for name in self._rooms:
            _delete(
                entry for entry in (self.path / name).iterdir() if _OURS.fullmatch(entry.name) and entry not in known
            )
        _delete(entry for entry in self.path.iterdir() if _PARTIAL.fullmatch(entry.name))

    def share(self, other: RunFolder, manifest: Manifest) -> bool:
        """Give the files of a manifest to another folder, as further names of the same files where that is possible.

        Returns:
            Whether nothing had to be copied.
        """
        pairs = [(self.inputs, other.inputs)] if manifest.inputs_sha256 else []
        for index, record in enumerate(manifest.chunks):
            pairs += zip(self.files(index, record), other.files(index, record), strict=True)
        return all([_link(old, new) for old, new in pairs])


def check_file(path: Path, size: int | None, digest: str | None) -> Path:
    """Return the path of a file that is what the manifest says.

    Raises:
        ValueError: if it is missing, a link, or another file.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} is missing, or not a file")
    if path.stat().st_size != size:
        raise ValueError(f"{path} is damaged: it has {path.stat().st_size} bytes; expected {size}")
    if digest_of(path) != digest:
        raise ValueError(f"{path} is damaged, or was changed: its digest does not fit the manifest")
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _delete(entries: Iterable[Path]) -> None:
    for entry in list(entries):
        if entry.is_symlink() or entry.is_file():
            entry.unlink(missing_ok=True)


def _link(old: Path, new: Path) -> bool:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        partial = new.with_name(f".{new.name}.{os.getpid()}.partial")
        shutil.copyfile(old, partial, follow_symlinks=False)
        os.replace(partial, new)
        return False
    return True
