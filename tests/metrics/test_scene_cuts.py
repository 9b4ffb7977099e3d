"""SCuts: known cuts are found, a long take has none, and the count is PySceneDetect's own."""

import pytest
import torch

from longvid.metrics import MissingWeights, make_metric
from longvid.video.io import VideoWriter

pytest.importorskip("scenedetect")
pytest.importorskip("cv2")


def moving_texture(num_frames, seed, *, height=32, width=48):
    """A smooth texture that moves one pixel per frame."""
    colour = torch.tensor([(0.1, 0.2, 0.9), (0.9, 0.5, 0.1), (0.1, 0.9, 0.3)][seed])[:, None, None]
    wave = torch.sin(torch.arange(width) * 2 * torch.pi / width).expand(3, height, width)
    texture = (colour + 0.05 * wave).clamp(0, 1)
    return torch.stack([texture.roll(step, dims=-1) for step in range(num_frames)])


def spliced(*lengths, **size):
    return torch.cat([moving_texture(length, seed, **size) for seed, length in enumerate(lengths)])


def measure(frames, *, pieces=1000):
    metric = make_metric("scuts")
    for piece in frames.split(pieces):
        metric.update(piece)
    return metric.compute()


def test_the_cuts_of_a_spliced_video_are_found_where_they_are():
    result = measure(spliced(20, 20, 20))
    assert result.value == 2
    assert result.details["cuts at frames"] == "20, 40"
    assert result.higher_is_better is False


def test_a_long_take_and_a_still_have_no_cuts():
    assert measure(spliced(40)).value == 0
    assert measure(spliced(1).expand(20, -1, -1, -1)).value == 0


def test_more_splices_give_a_higher_number():
    assert measure(spliced(60)).value < measure(spliced(30, 30)).value < measure(spliced(20, 20, 20)).value


def test_the_pieces_in_which_frames_come_change_nothing():
    video = spliced(20, 18, 22)
    assert measure(video, pieces=1) == measure(video, pieces=7) == measure(video)


def test_the_count_is_that_of_pyscenedetect_on_a_lossless_file_that_it_makes_smaller(tmp_path):
    import scenedetect

    video = spliced(20, 20, 17, height=180, width=320)
    with VideoWriter(tmp_path / "spliced.mkv", fps=25, codec="ffv1") as writer:
        writer.write(video)
    scenes = scenedetect.detect(str(tmp_path / "spliced.mkv"), scenedetect.AdaptiveDetector())
    expected = [scene[0].frame_num for scene in scenes[1:]]
    assert measure(video).details["cuts at frames"] == ", ".join(map(str, expected))
    assert expected == [20, 40]


def test_no_frames_have_no_score():
    result = make_metric("scuts").compute()
    assert result.value is None and result.note


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "scenedetect.detectors", None)
    with pytest.raises(MissingWeights, match=r"scenedetect.*longvid\[metrics\]"):
        make_metric("scuts")
