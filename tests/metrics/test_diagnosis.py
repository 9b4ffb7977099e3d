"""A chunk's diagnosis: closed forms, and that every fault is found where it was put."""

from __future__ import annotations

import math

import pytest
import torch

from longvid.metrics.diagnosis import Limits, diagnose


def moving(count: int, *, start: int = 0, level: float = 0.5) -> list[torch.Tensor]:
    """Vertical stripes that move one pixel a frame."""
    wave = torch.arange(16).float()
    return [
        (level + 0.3 * torch.sin((wave + shift) * math.pi / 4)).expand(3, 12, 16)
        for shift in range(start, start + count)
    ]


def problems(frames, **options):
    return {found.problem for found in diagnose(frames, **options).findings}


def test_a_steady_video_has_no_problem_and_its_seam_is_one():
    video = moving(16)
    found = diagnose(video[8:], before=video[:8], anchor=video[0])
    assert found.findings == () and found.scores["seam"] == pytest.approx(1, abs=1e-3)
    assert found.scores["color"] < 0.5 and found.scores["contrast"] < 0.5 and found.scores["still"] > 5
    assert diagnose(video).scores["seam"] is None


@pytest.mark.parametrize(
    ("fault", "frames"),
    [
        ("seam", [1 - frame for frame in moving(8, start=8, level=0.5)]),
        ("color", [frame * torch.tensor([1.0, 0.3, 0.3])[:, None, None] for frame in moving(8, start=8)]),
        ("contrast", [0.5 + (frame - 0.5) * 0.1 for frame in moving(8, start=8)]),
        ("still", moving(1, start=8) * 8),
        ("black", [*moving(4, start=8), torch.zeros(3, 12, 16), *moving(3, start=13)]),
    ],
)
def test_every_fault_is_found_by_its_name(fault, frames):
    limits = Limits(seam=1.2) if fault == "seam" else None
    assert fault in problems(frames, before=moving(8), anchor=moving(1)[0], limits=limits)


def test_the_measures_have_their_closed_forms():
    grey = [torch.full((3, 4, 4), level / 255) for level in (100, 101, 103, 113, 114, 116)]
    scores = diagnose(grey[3:], before=grey[:3], anchor=grey[0]).scores
    assert scores["seam"] == pytest.approx(10 / 1.5, rel=1e-4)  # the median of 1, 2, 1, 2
    assert scores["still"] == pytest.approx(1.5, rel=1e-4) and scores["black"] == pytest.approx(113, rel=1e-4)
    assert scores["contrast"] == pytest.approx(0, abs=1e-3)
    lightness = [116 * (((level / 255 + 0.055) / 1.055) ** 2.4) ** (1 / 3) - 16 for level in (100, 113, 114, 116)]
    assert scores["color"] == pytest.approx(sum(lightness[1:]) / 3 - lightness[0], rel=1e-3)


def test_a_finding_says_what_it_is_with_its_numbers_and_worse_is_more_severe():
    dark, darker = (diagnose([torch.full((3, 4, 4), level / 255)]).findings[0] for level in (10, 2))
    assert str(dark) == "a frame is black (black 10, at least 16 is fine)" and darker.severity > dark.severity > 1


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "2", True])
def test_a_limit_is_a_number_of_at_least_0(value):
    with pytest.raises(ValueError, match="the limit seam must be a number of at least 0"):
        Limits(seam=value)


def test_a_chunk_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        diagnose([])
