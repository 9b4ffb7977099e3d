from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from longvid.cli.mask_sheet import MaskSheet, pick_evaluations
from longvid.video.io import read_video
from longvid.video.state import StreamState, VideoChunk


def chunk(number: int, mask: float | None, *, num_evaluations: int = 3) -> VideoChunk:
    """One red frame of 16 x 16 pixels, with masks of 2 x 2 that have one value."""
    frames = torch.zeros(1, 3, 1, 16, 16)
    frames[:, 0] = 1
    extras = {} if mask is None else {"masks": torch.full((1, num_evaluations, 1, 2, 2), mask)}
    return VideoChunk(frames, number, StreamState(number + 1), extras)


@pytest.mark.parametrize(("count", "columns"), [(1, 13), (11, 13), (50, 13), (99, 13), (99, 4)])
def test_evaluations_are_at_one_interval_and_end_with_the_last(count, columns):
    picked = pick_evaluations(count, columns)
    assert picked[-1] == count - 1 and len(picked) <= columns
    assert len(set(np.diff(picked))) <= 1


@pytest.mark.parametrize(("mask", "grey"), [(0.0, 0), (1.0, 255)])
def test_on_the_page_what_is_predicted_is_black_and_what_is_copied_is_white(tmp_path, mask, grey):
    sheet = MaskSheet(tmp_path / "masks.png", num_frames=3, fps=8)
    for number in range(3):
        sheet.add(chunk(number, mask))
    sheet.close()
    page = np.asarray(Image.open(tmp_path / "masks.png"))
    red = (page == (255, 0, 0)).all(-1)
    assert red.sum() == 2 * 16 * 16  # frames 1 and 2: frame 0 has nothing to copy from
    row, column = np.argwhere(red)[0]
    for index in range(3):
        left = column + (index + 1) * 20
        assert (page[row : row + 16, left : left + 16] == grey).all()


def test_a_video_shows_every_frame_beside_its_masks(tmp_path):
    sheet = MaskSheet(tmp_path / "masks.mp4", num_frames=3, fps=8)
    for number, mask in enumerate([None, 0.0, 0.0]):  # a given frame is copied whole
        sheet.add(chunk(number, mask, num_evaluations=4))
    sheet.close()
    first, second, third = read_video(tmp_path / "masks.mp4")
    assert first.shape == (3, 16, 5 * 16 + 4 * 4)
    assert first[:, :, 22:34].min() > 0.9 and second[:, :, 22:34].max() < 0.1 and third[:, :, 22:34].max() < 0.1


def test_a_page_without_masks_is_not_written(tmp_path):
    sheet = MaskSheet(tmp_path / "masks.png", num_frames=1, fps=8)
    sheet.add(chunk(0, None))
    sheet.close()
    assert not (tmp_path / "masks.png").exists()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_given_first_frame_goes_with_masks_of_any_number_of_steps(tmp_path, steps):
    sheet = MaskSheet(tmp_path / "masks.mp4", num_frames=2, fps=8)
    for number, mask in enumerate([None, 0.0]):
        sheet.add(chunk(number, mask, num_evaluations=steps))
    sheet.close()
    given, made = read_video(tmp_path / "masks.mp4")
    assert given.shape == made.shape == (3, 16, 5 * 16 + 4 * 4)
    drawn = [bool(made[:, :, left + 2 : left + 14].max() < 0.1) for left in range(20, 100, 20)]
    count = len(pick_evaluations(steps, 4))
    assert drawn == [True] * count + [False] * (4 - count)
    assert made[:, :, 20 * (count + 1) + 2 :].min() > 0.9  # no evaluation: white
