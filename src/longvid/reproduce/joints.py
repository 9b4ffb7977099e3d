"""Where windows are joined, and what can be seen there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from longvid.reproduce.video_measures import LEAST_STEP, steps_of
from longvid.samplers.randomized_blending import Cut, paper_cut
from longvid.sprites.judge import read_batch
from longvid.sprites.scene import Scene
from longvid.video.windows import Window

STRETCH = 16
"""Frames of the parts in which the motion of a long video is read."""


def middle_cut(overlap: int, generator: torch.Generator | None = None) -> int:
    """Always the middle of an overlap: plain concatenation under shared noise."""
    return overlap // 2


CUTS: dict[str, Cut] = {"random": paper_cut, "middle": middle_cut}
"""Where an overlap is cut, by the names that variants use."""


def worst_joint(video: Tensor, windows: Collection[Window]) -> float:
    r"""The largest step over any frame at which neighbouring windows may be joined, averaged over their overlaps.

    .. math:: \operatorname{mean}_k \max_{s_k \le i \le s_k + O_k} J_i \,/\,
        \max(\operatorname{median}_{i \text{ no joint}} J_i, 0.25)

    :math:`J_i` is the mean absolute difference of frames i - 1 and i on the 0-255 scale, and :math:`s_k` the first of
    the :math:`O_k` frames that window k shares with the one before. A maximum over several steps is above 1 in a video
    without joints, too: compare it with that of other videos of this length.

    Shapes:
        video (3, F, H, W) in [0, 1] -> a number.
    """
    steps = steps_of(video)
    places = [list(joints(window)) for window in windows if window.overlap]
    inside = torch.zeros(len(steps), dtype=torch.bool)
    for place in places:
        inside[[frame - 1 for frame in place]] = True
    usual = steps[~inside] if not inside.all() else steps
    worst = [max(steps[frame - 1].item() for frame in place) for place in places]
    return sum(worst) / len(worst) / max(usual.median().item(), LEAST_STEP)


def joints(window: Window) -> range:
    """First frames behind the cuts that a window's overlap allows."""
    return range(max(window.start, 1), window.start + window.overlap + 1)


def moving_stretches(scenes: Sequence[Scene], videos: Tensor) -> list[float]:
    """The share of the stretches of 16 frames of each video (B, 3, F, 64, 64) that move as its scene does."""
    starts = range(0, max(1, videos.shape[2] - STRETCH + 1), STRETCH)
    parts = [read_batch(videos[:, :, start : start + STRETCH]) for start in starts]
    return [
        sum(part[row].sprites[0].motion == scene.sprites[0].motion for part in parts) / len(parts)
        for row, scene in enumerate(scenes)
    ]
