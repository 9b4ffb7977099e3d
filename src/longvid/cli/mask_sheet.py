"""Predicted masks as the ART-V paper draws them in Fig. 11: black moves and is predicted anew, white is copied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_GAP, _LABEL, _MAX_ROWS, _MAX_COLUMNS = 4, 14, 8, 13
_MARGIN = 58
_VIDEO_COLUMNS = 4


def pick_evaluations(count: int, columns: int) -> list[int]:
    """Up to `columns` of `count` evaluations of the networks, at one interval, ending with the last."""
    interval = -(-count // columns)
    return sorted(range(count - 1, -1, -interval))


class MaskSheet:
    """Draws masks while a video is made: on one page (.png) for some frames, or beside every frame (a video file).

    Args:
        path: Where the masks go.
        num_frames: Frames of the whole video, to choose the frames of the page.
        fps: Frames per second of the video.
    """

    def __init__(self, path: Path, *, num_frames: int, fps: float):
        from longvid.video.io import VideoWriter

        self.path = path
        self._writer = None if path.suffix.lower() == ".png" else VideoWriter(path, fps=fps)
        wanted = np.linspace(1, max(1, num_frames - 1), min(_MAX_ROWS, max(1, num_frames - 1)))
        self._wanted = {int(round(number)) for number in wanted}
        self._rows: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._evaluations: list[int] = []
        self._num_evaluations = 0

    def add(self, chunk: Any) -> None:
        """Take the frames and masks of a chunk; a frame that was given and not predicted has no masks."""
        masks = chunk.extras.get("masks")  # (B, S, F, h, w)
        for offset in range(chunk.num_frames):
            number = chunk.start + offset
            if self._writer is None and (number not in self._wanted or masks is None):
                continue
            frame = _bytes(chunk.frames[0, :, offset].permute(1, 2, 0))
            if masks is not None:
                self._num_evaluations = masks.shape[1]
                columns = _VIDEO_COLUMNS if self._writer else _MAX_COLUMNS
                self._evaluations = pick_evaluations(masks.shape[1], columns)
            drawn = self._drawn(masks, offset, frame.shape[:2])
            if self._writer is None:
                self._rows.append((number, frame, drawn))
            else:
                self._writer.write(_side_by_side([frame, *map(_grey, drawn)]))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
        elif self._rows:
            self._page().save(self.path)

    def _drawn(self, masks: Any, offset: int, size: Sequence[int]) -> np.ndarray:
        height, width = size
        if masks is None:
            return _white(_VIDEO_COLUMNS, height, width)
        small = _bytes(masks[0, self._evaluations, offset])
        rows = np.arange(height) * small.shape[1] // height
        columns = np.arange(width) * small.shape[2] // width
        drawn = small[:, rows][:, :, columns]
        if self._writer is None:
            return drawn
        missing = _VIDEO_COLUMNS - len(drawn)  # all frames of a video have one width
        return np.concatenate([drawn, _white(missing, height, width)])

    def _page(self) -> Any:
        from PIL import Image, ImageDraw

        height, width = self._rows[0][1].shape[:2]
        columns = 1 + len(self._evaluations)
        left = [_MARGIN + column * (width + _GAP) for column in range(columns)]
        title = f"mask at evaluation ... of {self._num_evaluations}: black is predicted, white is copied"
        title_width = int(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(title))
        page_width = max(left[-1] + width, left[1] + title_width) + _GAP
        page = Image.new("RGB", (page_width, 2 * _LABEL + _GAP + len(self._rows) * (height + _GAP)), "white")
        draw = ImageDraw.Draw(page)
        draw.text((left[1], 1), title, fill="black")
        for column, evaluation in enumerate(self._evaluations, start=1):
            draw.text((left[column], _LABEL), str(evaluation + 1), fill="black")
        for row, (number, frame, masks) in enumerate(self._rows):
            top = 2 * _LABEL + _GAP + row * (height + _GAP)
            draw.text((_GAP, top + height // 2 - 5), f"frame {number}", fill="black")
            for column, picture in enumerate([frame, *masks]):
                page.paste(Image.fromarray(picture), (left[column], top))
        return page


def _bytes(values: Any) -> np.ndarray:
    return (values.float().clamp(0, 1) * 255).round().byte().cpu().numpy()


def _white(columns: int, height: int, width: int) -> np.ndarray:
    return np.full((columns, height, width), 255, np.uint8)


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[:, :, None], 3, axis=2)


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return np.concatenate(parts, axis=1)
