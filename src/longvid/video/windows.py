"""All chunk and overlap arithmetic: which frames are made together, and which of them are new."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload


@dataclass(frozen=True)
class Window:
    """Frames ``[start, stop)`` that are made together.

    The first `overlap` of them were already made by an earlier window. The last `excess` of them lie behind the end of
    the video: a network that takes a fixed number of frames still makes them, and the caller cuts them away. What
    remains is new:

        start        new.start              new.stop        stop
          | overlap      |       num_new        |  excess    |

    Attributes:
        index: Number of the window, from 0.
        start: First frame, counted in the whole video.
        stop: One past the last frame. Exceeds the length of the video by `excess`, which only the last windows have.
        overlap: Frames at the beginning that exist already.
        excess: Frames at the end that are made and thrown away.
    """

    index: int
    start: int
    stop: int
    overlap: int
    excess: int = 0

    @property
    def frames(self) -> slice:
        """Every frame of the window, counted in the whole video."""
        return slice(self.start, self.stop)

    @property
    def num_new(self) -> int:
        """How many frames of the video this window adds."""
        return self.stop - self.start - self.overlap - self.excess

    @property
    def new(self) -> slice:
        """The frames this window adds, counted in the whole video."""
        return slice(self.start + self.overlap, self.stop - self.excess)

    @property
    def keep(self) -> slice:
        """The frames this window adds, counted inside the window: ``latents[:, :, window.keep]``."""
        return slice(self.overlap, self.overlap + self.num_new)


@dataclass(frozen=True)
class WindowPlan(Sequence[Window]):
    """The windows of one video, computed when asked for: length, indexing and slicing cost O(1) at any video length."""

    num_frames: int | float
    size: int
    overlap: int
    start: int
    first_overlap: int
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> WindowPlan: ...
    def __getitem__(self, index: int | slice) -> Window | WindowPlan:
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        return self._window(self.indices[index])

    def _window(self, index: int) -> Window:
        start = self.start - self.first_overlap + index * (self.size - self.overlap)
        stop = start + self.size
        overlap = self.overlap if index else self.first_overlap
        excess = 0 if self.num_frames == math.inf else max(0, stop - int(self.num_frames))
        return Window(index, start, stop, overlap, excess)


def plan_windows(
    num_frames: int | float, size: int, overlap: int = 0, start: int = 0, first_overlap: int | None = None
) -> WindowPlan:
    """Cover frames ``[start, num_frames)`` with windows of `size` frames, neighbours sharing `overlap` frames.

    The ``new`` ranges of the windows are disjoint, in order, and cover every frame exactly once, for any `num_frames`.
    Every window has exactly `size` frames; what the last one makes behind the end is its ``excess``.

    Args:
        num_frames: Length of the whole video, the frames before `start` included; ``math.inf`` plans a video without
            end, whose ``len()`` is ``sys.maxsize``.
        size: Frames per window.
        overlap: Frames of each window that the one before it made already.
        start: First frame to make. Frames before it exist, and up to `overlap` of them open the first window.
        first_overlap: How many do so exactly. More than `start` of them reach back behind frame 0, to frames that the
            caller has from elsewhere: the first window then starts at a negative number.

    Raises:
        ValueError: unless `num_frames` is a whole number of at least 1 or infinite, ``0 <= overlap < size``,
            ``0 <= first_overlap <= overlap`` and ``0 <= start <= num_frames``.

    Example:
        >>> [(w.start, w.stop, w.new) for w in plan_windows(20, size=16, overlap=8)]
        [(0, 16, slice(0, 16, None)), (8, 24, slice(16, 20, None))]
    """
    if not num_frames >= 1 or (num_frames != math.inf and num_frames != int(num_frames)):
        raise ValueError(f"num_frames must be a whole number of at least 1, or math.inf; got {num_frames}")
    if size < 1:
        raise ValueError(f"window size must be at least 1; got {size}")
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be at least 0 and below the window size; got overlap={overlap}, size={size}")
    if not 0 <= start <= num_frames:
        raise ValueError(f"start must lie in [0, num_frames]; got start={start}, num_frames={num_frames}")
    first = min(overlap, start) if first_overlap is None else first_overlap
    if not 0 <= first <= overlap:
        raise ValueError(f"first_overlap must be at least 0 and at most the overlap, {overlap}; got {first}")
    if num_frames == math.inf:
        return WindowPlan(num_frames, size, overlap, start, first, range(sys.maxsize))
    missing = int(num_frames) - start
    behind_first = max(0, missing - (size - first))  # frames that the first window does not reach
    num_windows = (missing > 0) + -(-behind_first // (size - overlap))
    return WindowPlan(num_frames, size, overlap, start, first, range(num_windows))


def fit_windows(num_frames: int, size: int, overlap: int = 0) -> tuple[Window, ...]:
    """Cover frames ``[0, num_frames)`` with windows that all lie inside the video.

    They are those of :func:`plan_windows`, except that the last one, where it would reach behind the end, is moved back:
    it keeps its `size` and shares more than `overlap` frames with the windows before. A video of fewer than `size`
    frames is one window of its own length.

    Args:
        num_frames: Length of the video.
        size: Frames per window.
        overlap: Frames that neighbours share, the last two at least.

    Raises:
        ValueError: as :func:`plan_windows`, and if `num_frames` is infinite.

    Example:
        >>> [(w.start, w.stop, w.overlap) for w in fit_windows(20, size=8, overlap=2)]
        [(0, 8, 0), (6, 14, 2), (12, 20, 2)]
        >>> [(w.start, w.stop, w.overlap) for w in fit_windows(21, size=8, overlap=2)]
        [(0, 8, 0), (6, 14, 2), (12, 20, 2), (13, 21, 7)]
    """
    if num_frames == math.inf:
        raise ValueError("num_frames must be a whole number: a video without end has no last window; got inf")
    windows = plan_windows(num_frames, size, overlap)
    last = windows[-1]
    if last.excess == 0:
        return tuple(windows)
    if len(windows) == 1:
        return (Window(0, 0, int(num_frames), 0),)
    moved = Window(last.index, last.start - last.excess, int(num_frames), last.overlap + last.excess)
    return (*windows[:-1], moved)
