"""What leaves the process between two chunks: the chunk itself, and the state that continues the stream after it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from longvid.video.atomic import write_atomically

FORMAT = "longvid-stream-state"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class StreamState:
    """Everything a stream needs to make its next window, bit for bit as if it had never stopped.

    Attributes:
        next_window: Index of the window to make next.
        context: The method's named tensors, such as its last latents and its anchor.
        keys: One random key per generator, drawn when the stream began; window k is seeded by (key, k) alone.
        fingerprint: What made the stream (model, versions, settings), compared before it is continued.
        num_frames: Frames of the video up to here; None in files of before this was kept.

    Raises:
        ValueError: if a field has the wrong type or `next_window` is negative.
    """

    next_window: int
    context: dict[str, Tensor] = field(default_factory=dict)
    keys: tuple[int, ...] = ()
    fingerprint: dict[str, str] = field(default_factory=dict)
    num_frames: int | None = None

    def __post_init__(self) -> None:
        """Refuse at once what could not be saved later."""
        if not _is_int(self.next_window) or self.next_window < 0:
            raise ValueError(f"next_window must be an integer of at least 0; got {self.next_window!r}")
        for name, tensor in self.context.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise ValueError(f"context must map names to tensors; got {name!r}: {type(tensor).__name__}")
        if not isinstance(self.keys, tuple) or not all(map(_is_int, self.keys)):
            raise ValueError(f"keys must be a tuple of integers; got {self.keys!r}")
        for name, value in self.fingerprint.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ValueError(f"fingerprint must map text to text; got {name!r}: {value!r}")
        if self.num_frames is not None and (not _is_int(self.num_frames) or self.num_frames < 0):
            raise ValueError(f"num_frames must be an integer of at least 0, or None; got {self.num_frames!r}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one safetensors file: whole or not at all, also if the process dies midway.

        Tensors keep their dtype (bfloat16 too) and every bit; their device is not kept.

        Raises:
            ValueError: if the folder does not exist or a tensor has a dtype that safetensors cannot hold.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save

        path = Path(path)
        if not path.parent.is_dir():
            raise ValueError(f"cannot save the stream state to {path}: there is no folder {path.parent}")
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "next_window": str(self.next_window),
            "keys": json.dumps(self.keys),
            "fingerprint": json.dumps(self.fingerprint, sort_keys=True),
            "num_frames": json.dumps(self.num_frames),
        }
        # cloned because safetensors refuses views of one storage, and context tensors often are
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.context.items()
        }
        try:
            data = save(tensors, metadata)
        except (SafetensorError, KeyError) as error:
            dtypes = sorted({str(tensor.dtype) for tensor in tensors.values()})
            raise ValueError(f"cannot save tensors of dtype {', '.join(dtypes)} to {path}: {error}") from error
        write_atomically(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StreamState:
        """Read a state that :meth:`save` wrote; its tensors are on the CPU.

        Raises:
            ValueError: if there is no such file, or it is truncated, damaged, not a stream state, or written by a newer
                version of longvid.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise ValueError(f"there is no stream state file at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = _check_format(path, file.metadata() or {})
                context = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged, truncated or not a stream state at all: {error}") from error
        try:
            return cls(
                next_window=int(metadata["next_window"]),
                context=context,
                keys=tuple(json.loads(metadata["keys"])),
                fingerprint=json.loads(metadata["fingerprint"]),
                num_frames=json.loads(metadata.get("num_frames", "null")),
            )
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is a damaged stream state: {error}") from error


@dataclass(frozen=True, eq=False)
class VideoChunk:
    """The new frames of one window, or a part of them, and the state that continues after them.

    Attributes:
        frames: ``(B, 3, F, H, W)`` in [0, 1]; latents ``(B, c, F, h, w)`` when latents were asked for.
        start: Number of the first of these frames in the whole video.
        state: Continues the stream behind this chunk; where further frames of its window come behind it, the state
            before the window, which makes all of them again.
        extras: What else the method made for these frames, by name, such as its masks.
        ends_window: Whether its window is finished with it. Windows that hold a whole video are handed out in parts.
    """

    frames: Tensor
    start: int
    state: StreamState
    extras: dict[str, Tensor] = field(default_factory=dict)
    ends_window: bool = True

    @property
    def num_frames(self) -> int:
        """F, the number of new frames."""
        return self.frames.shape[2]

    @property
    def stop(self) -> int:
        """One past the number of the last of these frames in the whole video."""
        return self.start + self.num_frames


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_format(path: Path, metadata: dict[str, str]) -> dict[str, str]:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file but not a stream state saved by longvid")
    version = metadata.get("format_version", "")
    if not version.isdecimal() or int(version) < 1:
        raise ValueError(f"{path} is a damaged stream state: its format version reads {version!r}")
    if int(version) > FORMAT_VERSION:
        raise ValueError(
            f"{path} was written by a newer longvid: it has stream state format {version}, this version reads up to "
            f"{FORMAT_VERSION}; upgrade longvid to continue from it"
        )
    return metadata
