"""Which windows a chunk of a run is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longvid.video.windows import Window


@dataclass(frozen=True)
class Span:
    """Windows `[first_window, stop_window)`, which add the frames `[start, stop)`."""

    first_window: int
    stop_window: int
    start: int
    stop: int


def spans_from(windows: Sequence[Window], first_window: int, chunk_frames: int) -> Iterator[Span]:
    """The chunks of a run from a chunk's first window on, computed when asked for.

    A chunk is closed as soon as its windows have made `chunk_frames` frames together, those of their overlaps counted,
    or the video ends. It depends on its first window only, so chunks that exist stay what they are when a video grows.

    Example:
        >>> from longvid.video.windows import plan_windows
        >>> [(s.start, s.stop) for s in spans_from(plan_windows(40, size=1), 0, 16)]
        [(0, 16), (16, 32), (32, 40)]
        >>> [(s.start, s.stop) for s in spans_from(plan_windows(40, size=16, overlap=8), 0, 16)]
        [(0, 16), (16, 24), (24, 32), (32, 40)]
    """
    first, made = first_window, 0
    for index in range(first_window, len(windows)):
        window = windows[index]
        made += window.stop - window.start
        if made >= chunk_frames or index == len(windows) - 1:
            yield Span(first, index + 1, windows[first].new.start, window.new.stop)
            first, made = index + 1, 0
