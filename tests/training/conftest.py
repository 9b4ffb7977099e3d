"""Small captioned videos, as a user might have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longvid.video.io import VideoWriter


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory) -> Path:
    """Three videos of 10, 12 and 14 frames, 40 x 48 at 8 fps, with captions."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        draws = torch.Generator().manual_seed(number)
        color, light = torch.rand(3, 1, 1, 1, generator=draws), torch.linspace(0.3, 1, 10 + 2 * number)[:, None, None]
        with VideoWriter(folder / f"{number}.mp4", fps=8) as writer:
            writer.write((color * light).expand(3, -1, 40, 48))
        (folder / f"{number}.txt").write_text(f"Waves, number {number}: très beau!\n", encoding="utf-8")
    return folder
