"""The windows of a video that is made chunk after chunk: what opens it, and windows of constant size behind that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from longvid.video.windows import Window, WindowPlan, plan_windows


@dataclass(frozen=True)
class ChunkPlan(Sequence[Window]):
    """An opening window, if there is one, and the windows behind it; computed when asked for."""

    opening: Window | None
    rest: WindowPlan
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> ChunkPlan: ...
    def __getitem__(self, index: int | slice) -> Window | ChunkPlan:
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        number = self.indices[index]
        if self.opening is None:
            return self.rest[number]
        return self.opening if number == 0 else replace(self.rest[number - 1], index=number)


def plan_chunks(num_frames: int | float, *, size: int, overlap: int, opening: int) -> ChunkPlan:
    """Cover a video with an opening of its own length and chunks of `size` frames that share `overlap` each.

    Every chunk behind the opening begins with exactly `overlap` frames that exist: with an opening shorter than that,
    or none, the first of them lie before frame 0.

    Args:
        num_frames: Length of the video, or ``math.inf``.
        size: Frames per chunk.
        overlap: Frames that a chunk shares with what is before it.
        opening: Frames of the opening window; 0 means that there is none.

    Raises:
        ValueError: if `plan_windows` refuses these numbers.

    Example:
        >>> [(w.start, w.new) for w in plan_chunks(20, size=16, overlap=8, opening=1)]
        [(0, slice(0, 1, None)), (-7, slice(1, 9, None)), (1, slice(9, 17, None)), (9, slice(17, 20, None))]
    """
    rest = plan_windows(num_frames, size, overlap, start=int(min(opening, num_frames)), first_overlap=overlap)
    if not opening:
        return ChunkPlan(None, rest, range(len(rest)))
    excess = int(max(0, opening - num_frames))
    return ChunkPlan(Window(0, 0, opening, 0, excess), rest, range(min(len(rest), sys.maxsize - 1) + 1))
