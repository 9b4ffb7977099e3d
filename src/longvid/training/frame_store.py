"""What training reads of a user's videos, pixels or latents, made once and kept on disk for random access."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longvid.training.data import Clip, DataOptions, clip_frames
from longvid.training.latents import weights_mark
from longvid.video.codec import encode_video

FRAMES_PER_BATCH = 8


class FrameStore:
    """One safetensors file per clip, (F, ...), so that memory does not grow with the number or the length of clips.

    A file is made again when the video, the options or the network that it was made with are others.

    Args:
        folder: Where the files lie.
        clips: The clips; indices below count in them.
        mark: What the files are made with, besides the videos.
        read: Makes the frames of a clip, (F, ...).
        min_frames: A clip with fewer frames is an error.
    """

    def __init__(
        self, folder: str | Path, clips: Sequence[Clip], mark: str, read: Callable[[Clip], Tensor], min_frames: int = 1
    ) -> None:
        self.folder, self.clips, self.min_frames = Path(folder), list(clips), min_frames
        self._mark, self._read = mark, read
        self._lengths: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def make(self, process_index: int = 0, num_processes: int = 1) -> Iterator[int]:
        """Make what is missing of this process's share of the clips; yields how many of them are done.

        Raises:
            ValueError: if a video is damaged or too short.
        """
        for done, index in enumerate(range(process_index, len(self.clips), num_processes), 1):
            self.num_frames(index)
            yield done

    def num_frames(self, index: int) -> int:
        """The number of frames of a clip, which is made if it is missing."""
        if index not in self._lengths:
            path = self._path(self.clips[index])
            length = _stored_length(path)
            self._lengths[index] = self._make(self.clips[index], path) if length is None else length
        return self._lengths[index]

    def frames(self, index: int, positions: Iterable[int]) -> Tensor:
        """Frames of a clip at positions in [0, `num_frames`), stacked."""
        self.num_frames(index)
        with safe_open(self._path(self.clips[index]), "pt") as file:
            stored = file.get_slice("frames")
            return torch.cat([stored[position : position + 1] for position in map(int, positions)])

    def _make(self, clip: Clip, path: Path) -> int:
        frames = self._read(clip)
        if len(frames) < self.min_frames:
            raise ValueError(
                f"{clip.path} is too short: {len(frames)} frames at the rate of training, which needs at least {self.min_frames}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({"frames": frames.contiguous()}, partial)
        partial.replace(path)
        return len(frames)

    def _path(self, clip: Clip) -> Path:
        stat = clip.path.stat()
        words = (self._mark, str(clip.path.resolve()), stat.st_size, stat.st_mtime_ns)
        return self.folder / f"{hashlib.sha256(repr(words).encode()).hexdigest()[:40]}.safetensors"


def pixel_store(folder: str | Path, clips: Sequence[Clip], options: DataOptions) -> FrameStore:
    """Pixels of the clips, 8-bit (F, 3, height, width)."""

    def read(clip: Clip) -> Tensor:
        frames = list(clip_frames(clip.path, options))
        return torch.stack(frames) if frames else torch.empty(0)

    return FrameStore(folder, clips, _mark(options), read, options.min_frames)


def latent_store(folder: str | Path, clips: Sequence[Clip], options: DataOptions, vae: Any) -> FrameStore:
    """Latents of the clips, (F, C, h, w) in float16, encoded on the device of `vae`."""

    @torch.no_grad()
    def read(clip: Clip) -> Tensor:
        parts = [torch.empty(0)]
        source = clip_frames(clip.path, options)
        while frames := list(islice(source, FRAMES_PER_BATCH)):
            video = torch.stack(frames, dim=1)[None].to(vae.device).float() / 127.5 - 1
            parts.append(encode_video(vae, video, frames_per_batch=FRAMES_PER_BATCH)[0].transpose(0, 1).half().cpu())
        return torch.cat(parts[1:] or parts)

    return FrameStore(folder, clips, weights_mark(vae, _mark(options)), read, options.min_frames)


def _mark(options: DataOptions) -> str:
    return f"{options.height} x {options.width} at {options.fps} per second"


def _stored_length(path: Path) -> int | None:
    """The number of frames in a file, or None if there is no such file or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_slice("frames").get_shape()[0]
    except (OSError, SafetensorError):
        return None
