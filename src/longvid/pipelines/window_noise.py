"""The noise that a window shares with the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from longvid.video.windows import Window


def noise_before(window: Window, plan: Sequence[Window], draw: Callable[[Window], Tensor]) -> Tensor:
    """Give the noise of the frames that a window begins with, drawn by the windows in which those are new.

    Every frame of a video then starts from one noise, whichever windows make it, and a window can be made alone.

    Args:
        window: A window that overlaps the one before.
        plan: All windows.
        draw: Draws the noise of all frames of a window, (B, C, F, h, w), the same at every call.

    Shapes:
        -> (B, C, overlap, h, w).
    """
    parts: list[Tensor] = []
    missing = window.overlap
    while missing:
        window = plan[window.index - 1]
        own = draw(window)[:, :, window.overlap :]
        parts.insert(0, own[:, :, -missing:])
        missing -= parts[0].shape[2]
    return torch.cat(parts, dim=2)
