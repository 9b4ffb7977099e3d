"""How a run is kept: what the video is encoded as, and how much is left to go on from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from longvid.metrics.diagnosis import Limits
from longvid.video.codecs import CODECS, CONTAINERS, check_codec, check_size, is_lossless

CHUNK_FRAMES = 16
SUFFIXES = {container: suffix for suffix, container in CONTAINERS.items()}
ON_PROBLEM = ("warn", "stop", "reroll")
_CHANGING = ("libvpx",)  # adapts to the time that it has


@dataclass(frozen=True)
class RunOptions:
    """What a run folder is asked for, beside the video itself.

    Args:
        fps: Frames per second.
        codec: As `VideoWriter` takes it, "libx264" by default. It settles the name of the video: `video.mp4`, for
            "libvpx-vp9" `video.webm`, for the lossless "ffv1" `video.mkv`. "libvpx" (VP8) is refused, because it does
            not encode the same frames to the same video twice.
        crf: As `VideoWriter` takes it.
        pixel_format: As `VideoWriter` takes it.
        chunk_frames: A chunk is as many windows as make this many frames, the overlap counted: 16 frames of ART-V, one
            window of StreamingT2V.
        keep_states: How many of the newest chunks keep the state that the next one goes on from, at least 2; None keeps
            all. A chunk can be made again while the chunk before it keeps its state.
        keep_frames: Whether the frames of every chunk are kept as they were made, without loss, beside the encoded ones,
            to be measured or encoded again. With the lossless codec "ffv1" the video itself holds them.
        on_problem: What is done about a new chunk that is beyond `limits`: "warn" tells the watcher, "stop" keeps the
            chunk and stops behind it, "reroll" makes it again with other seeds; None does not look.
        max_rerolls: How often one chunk is made again at most; then the take with the least problems is kept.
        limits: Where a problem begins.

    Raises:
        ValueError: if one of them is out of its range, or they do not go together.
    """

    fps: float | Fraction = 8
    codec: str | None = None
    crf: float | None = None
    pixel_format: str | None = None
    chunk_frames: int = CHUNK_FRAMES
    keep_states: int | None = None
    keep_frames: bool = True
    on_problem: str | None = None
    max_rerolls: int = 2
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse at once what no chunk could be written with."""
        if not isinstance(self.fps, (int, float, Fraction)) or not 0 < self.fps <= 1000:
            raise ValueError(f"fps must lie in (0, 1000]; got {self.fps!r}")
        if not self.rate:
            raise ValueError(f"fps must be at least 1/65535; got {self.fps}")
        _check_int("chunk_frames", self.chunk_frames, 1, 2**20)
        if self.keep_states is not None:
            _check_int("keep_states", self.keep_states, 2, 2**31)
        if not isinstance(self.keep_frames, bool):
            raise ValueError(f"keep_frames must be True or False; got {self.keep_frames!r}")
        if self.on_problem not in (None, *ON_PROBLEM):
            raise ValueError(f"on_problem must be one of {', '.join(ON_PROBLEM)}, or None; got {self.on_problem!r}")
        _check_int("max_rerolls", self.max_rerolls, 0, 1000)
        if not isinstance(self.limits, Limits):
            raise ValueError(f"limits must be Limits; got {self.limits!r}")
        known = sorted(CODECS.keys() - set(_CHANGING))
        if self.codec is not None and self.codec not in known:
            raise ValueError(f"codec of a run must be one of {', '.join(known)}; got {self.codec!r}")
        for name, kinds in {"crf": (int, float), "pixel_format": str}.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise ValueError(f"{name} has the wrong type: got {value!r}")
        check_codec(CONTAINERS[self.suffix], self.codec, self.crf, self.pixel_format)

    @property
    def rate(self) -> Fraction:
        """Frames per second, as containers hold it."""
        return Fraction(self.fps).limit_denominator(65535)

    @property
    def suffix(self) -> str:
        """Ending of the video and of its parts."""
        return ".mp4" if self.codec is None else SUFFIXES[CODECS[self.codec].containers[0]]

    @property
    def frames_apart(self) -> bool:
        """Whether chunks have files of their own for their frames as they were made."""
        return self.keep_frames and not is_lossless(self.codec, self.pixel_format)

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that the codec holds only rounded.

        Raises:
            ValueError: naming a pixel format that holds it.
        """
        codec = self.codec or "libx264"
        check_size(codec, self.pixel_format or CODECS[codec].pixel_format(height, width), height, width)

    def encoding(self) -> dict[str, Any]:
        """The arguments of a `VideoWriter`."""
        return {"fps": self.rate, "codec": self.codec, "crf": self.crf, "pixel_format": self.pixel_format}

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """Name everything that can be asked for."""
        return frozenset(field.name for field in fields(cls))


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}; got {value!r}")
