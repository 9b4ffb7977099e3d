"""New chunks are looked at before they are kept: what is measured, and what is done about a problem."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from longvid.metrics.diagnosis import Diagnosis, Finding, diagnose
from longvid.runs.folder import RunFolder, check_file
from longvid.runs.manifest import ChunkRecord
from longvid.runs.options import RunOptions
from longvid.video.io import read_video

NEIGHBOURS = 9


class ProblemFound(ValueError):
    """A run with `on_problem="stop"` has kept a chunk that has a problem."""


class NotFinite(ValueError):
    """Frames that hold NaN or infinity, which no video can hold."""


@dataclass(frozen=True)
class Take:
    """A chunk that was made, maybe one of several tries.

    Attributes:
        record: Its files; None if it held NaN.
        diagnosis: What was measured; None where nobody looks.
    """

    record: ChunkRecord | None
    diagnosis: Diagnosis | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Its problems."""
        return self.diagnosis.findings if self.diagnosis else ()

    @property
    def badness(self) -> tuple[bool, int, float]:
        """Takes are compared by it: NaN, then how many problems, then how far the worst is beyond its limit."""
        return self.record is None, len(self.findings), max((found.severity for found in self.findings), default=0.0)


class Blind:
    """Looks at nothing. `max_rerolls` is how often a chunk with a problem is made again."""

    max_rerolls = 0

    def check_window(self, window: Any) -> None:
        """Refuse frames that no video can hold."""

    def look(self, folder: RunFolder, index: int, chunks: Sequence[ChunkRecord], record: ChunkRecord) -> Take:
        """Measure a chunk that is on the disk, behind `chunks[:index]`."""
        return Take(record)

    def settle(self, folder: RunFolder, index: int, take: Take) -> None:
        """A chunk was kept; raise if the run shall stop here."""


class Warn(Blind):
    """Measures every chunk and goes on whatever it finds.

    Everything is measured on the decoded files, so that a run that was stopped finds what one that was not finds.

    Args:
        options: With `limits`.
    """

    def __init__(self, options: RunOptions):
        self.options = options

    def check_window(self, window: Any) -> None:
        """Refuse NaN and infinity; the frames are only read."""
        for number, frame in enumerate(window.frames.unbind(2), start=window.start):
            if not bool(torch.isfinite(frame).all()):
                raise NotFinite(f"frame {number} holds NaN or infinity, which no video can hold")

    def look(self, folder: RunFolder, index: int, chunks: Sequence[ChunkRecord], record: ChunkRecord) -> Take:
        """Measure a chunk against the end of the one before it and the first frame of the video."""
        before, anchor = deque(), None
        if index:
            before = deque(read_video(_checked(folder, index - 1, chunks[index - 1])), maxlen=NEIGHBOURS)
            anchor = next(islice(read_video(_checked(folder, 0, chunks[0])), 1))
        frames = read_video(folder.chunk(index, record))
        return Take(record, diagnose(frames, before=before, anchor=anchor, limits=self.options.limits))


class Stop(Warn):
    """Keeps a chunk with a problem and stops behind it."""

    def settle(self, folder: RunFolder, index: int, take: Take) -> None:
        """Stop the run."""
        if take.findings:
            raise ProblemFound(
                f"chunk {index}: {'; '.join(map(str, take.findings))}. It is kept: `longvid resume {folder.path}` goes on,"
                f" `longvid reroll {folder.path} --chunk {index} --seed S` makes it again"
            )


class Reroll(Warn):
    """Makes a chunk with a problem again, with other seeds, and keeps the take with the least."""

    def __init__(self, options: RunOptions):
        super().__init__(options)
        self.max_rerolls = options.max_rerolls


def policy_of(options: RunOptions) -> Blind:
    """What `options.on_problem` asks for."""
    return {None: lambda _: Blind(), "warn": Warn, "stop": Stop, "reroll": Reroll}[options.on_problem](options)


def reroll_seed(key: int, chunk: int, attempt: int) -> int:
    """The seed of an attempt at a chunk, in [0, 2^63): 63 bits of SHA-256 of the run's key, the chunk and the attempt."""
    digest = hashlib.sha256(f"longvid reroll {key} {chunk} {attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _checked(folder: RunFolder, index: int, record: ChunkRecord) -> Any:
    return check_file(folder.chunk(index, record), record.video_bytes, record.video_sha256)
