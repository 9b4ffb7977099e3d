"""The video files of one chunk while it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import Tensor

from longvid.runs.folder import RunFolder, digest_of
from longvid.runs.manifest import ChunkRecord
from longvid.video.atomic import move_into_place
from longvid.video.io import VideoWriter

WRITTEN_FRAMES = 64


class ChunkFiles:
    """Writes the frames of a chunk: encoded for the video, and as they were made where the run keeps them apart.

    Use it as a context manager; what `keep` has not put into its place is deleted at the end.

    Args:
        folder: Files of the run.
        index: Number of the chunk.
        record: Its record; the sizes and digests of its files are not read.
    """

    def __init__(self, folder: RunFolder, index: int, record: ChunkRecord):
        options = folder.options
        self._places = {"video": folder.chunk(index, record)}
        encodings = {"video": options.encoding()}
        if options.frames_apart:
            self._places["frames"] = folder.frames(index, record)
            encodings["frames"] = {"fps": options.rate, "codec": "ffv1"}
        self._parts = {name: place.with_stem(f"{place.stem}.part") for name, place in self._places.items()}
        self._writing = ExitStack()
        self._writers = [
            self._writing.enter_context(VideoWriter(part, **encodings[name])) for name, part in self._parts.items()
        ]

    def write(self, frames: Tensor) -> None:
        """Append frames (1, 3, F, H, W) in [0, 1]."""
        for some in frames.split(WRITTEN_FRAMES, dim=2):
            for writer in self._writers:
                writer.write(some)

    def finish(self) -> None:
        """Complete the files; they are not in their places yet."""
        self._writing.close()

    def keep(self) -> None:
        """Put the finished files into their places, each whole and on the disk."""
        for name, part in self._parts.items():
            move_into_place(part, self._places[name])

    def recorded(self) -> dict[str, Any]:
        """What the manifest says of the files that were kept."""
        return dict(self._recorded())

    def _recorded(self) -> Iterator[tuple[str, Any]]:
        for name, place in self._places.items():
            yield f"{name}_bytes", place.stat().st_size
            yield f"{name}_sha256", digest_of(place)

    def __enter__(self) -> ChunkFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writing.__exit__(kind, error, trace)
        finally:
            for part in self._parts.values():
                part.unlink(missing_ok=True)
