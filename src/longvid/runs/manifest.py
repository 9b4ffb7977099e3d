"""The manifest of a run: everything that was asked for, and every chunk that is on the disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from longvid.runs.options import RunOptions
from longvid.video.atomic import write_atomically

FORMAT, FORMAT_VERSION = "longvid-run", 2
NAME = "run.json"


@dataclass(frozen=True)
class Change:
    """Another seed or prompt from a chunk on, or for that chunk alone.

    Attributes:
        chunk: The chunk's number.
        rest: Whether it holds for all chunks from there on.
        seed: Seed in place of the run's; None keeps it.
        prompt: Prompt in place of the run's; None keeps it.
    """

    chunk: int
    rest: bool
    seed: int | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class ChunkRecord:
    """One chunk on the disk.

    Attributes:
        first_window: Number of its first window.
        stop_window: One past its last window.
        start: Number of its first frame.
        stop: One past its last frame.
        take: How often the chunk was made; a part of its file names.
        video_bytes: Size of its video file.
        video_sha256: Digest of its video file.
        state_bytes: Size of the state behind it; None where it is not kept.
        state_sha256: Digest of that state.
        seed: Its own seed, where it has one.
        prompt: Its own prompt, where it has one.
        seconds: How long it took to make.
        made: When that was.
        frames_bytes: Size of the file of its frames as they were made; None where the run keeps none.
        frames_sha256: Digest of that file.
    """

    first_window: int
    stop_window: int
    start: int
    stop: int
    take: int
    video_bytes: int
    video_sha256: str
    state_bytes: int | None
    state_sha256: str | None
    seed: int | None
    prompt: str | None
    seconds: float
    made: str
    frames_bytes: int | None = None
    frames_sha256: str | None = None

    def without_state(self) -> ChunkRecord:
        """The record after its state was deleted."""
        return replace(self, state_bytes=None, state_sha256=None)


@dataclass
class Manifest:
    """What `run.json` holds.

    Attributes:
        request: Plain arguments of the call, defaults filled in.
        inputs_bytes: Size of the file with its tensors; None where there are none.
        inputs_sha256: Digest of that file.
        keys: The keys of the noise.
        seed: The seed that they were drawn with, where it is known.
        model: Its `name`, `class`, `dtype`, `device` and `scheduler`, to load it again.
        fingerprint: Of the model's parts.
        environment: Of the machine that makes the video.
        mixed: What differed where the run was gone on with all the same.
        options: How the video is encoded and what is kept.
        changes: Other seeds and prompts, later ones on top.
        chunks: Those on the disk, without gaps from the first frame on.
        finished: Digest of the chunks that the finished video was joined from; None while there is none.
        parent: The run that this one branched from.
        created: When the run was begun.
    """

    request: dict[str, Any]
    inputs_bytes: int | None
    inputs_sha256: str | None
    keys: tuple[int, ...]
    seed: int | None
    model: dict[str, Any]
    fingerprint: dict[str, str]
    environment: dict[str, str]
    options: RunOptions
    created: str
    mixed: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    chunks: list[ChunkRecord] = field(default_factory=list)
    finished: str | None = None
    parent: str | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return self.request["num_frames"]

    @property
    def num_made(self) -> int:
        """Frames on the disk."""
        return self.chunks[-1].stop if self.chunks else 0

    @property
    def next_window(self) -> int:
        """Window that is made next."""
        return self.chunks[-1].stop_window if self.chunks else 0

    @property
    def complete(self) -> bool:
        """Whether every frame is made and in the finished video."""
        return self.num_made == self.num_frames and self.finished == self.digest()

    def digest(self) -> str:
        """Digest of all chunks in their order."""
        return hashlib.sha256("".join(chunk.video_sha256 for chunk in self.chunks).encode()).hexdigest()

    def change_of(self, index: int) -> Change:
        """The seed and the prompt of a chunk; None in them is the run's own."""
        found = Change(index, False)
        for change in self.changes:
            if change.chunk == index or (change.rest and change.chunk < index):
                found = replace(
                    found,
                    seed=found.seed if change.seed is None else change.seed,
                    prompt=found.prompt if change.prompt is None else change.prompt,
                )
        return found

    def save(self, folder: Path) -> None:
        """Write `run.json` in one step."""
        write_atomically(folder / NAME, dumps(self.values()).encode())

    def values(self) -> dict[str, Any]:
        """Everything in the types that JSON knows."""
        options = {**asdict(self.options), "fps": str(self.options.rate)}
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self), "options": options}


def dumps(values: dict[str, Any]) -> str:
    """JSON with a checksum at its end; a line for every entry, and for every chunk."""
    lines = []
    for name, value in {**values, "checksum": checksum(values)}.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in value) + "\n  ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def checksum(values: dict[str, Any]) -> str:
    """Digest of all entries."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
