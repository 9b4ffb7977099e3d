"""The re-identification score of StreamingT2V, Eq. 11 and 12, on faces whose features are known."""

import math

import pytest
import torch

from longvid.metrics import MissingWeights, make_metric


class Faces:
    """A frame's upper left pixel is its number; `features[number]` are the features of its faces."""

    name = "known faces"

    def __init__(self, features):
        self.features = [torch.tensor(rows).reshape(-1, 2).float() for rows in features]

    def __call__(self, frame):
        return self.features[round(float(frame[0, 0, 0]) * 100)]


def measure(features, *, pieces=1000):
    frames = (torch.arange(len(features)) / 100)[:, None, None, None].expand(-1, 3, 2, 2)
    metric = make_metric("re_id", faces=Faces(features))
    for piece in frames.split(pieces):
        metric.update(piece)
    return metric.compute()


def test_equations_11_and_12_in_closed_form():
    half = math.sqrt(0.5)
    result = measure([[[1, 0]], [[0, 2], [3, 3]], [], [[1, 0]], [[1, 0]]])
    assert result.curve == pytest.approx((half, 0, 0, 1))
    assert result.value == pytest.approx((half + 1) / 4)  # four frames have faces
    assert result.details["mean over pairs"] == pytest.approx((half + 1) / 2)


def test_one_unchanging_face_gives_one_less_than_n_over_n():
    result = measure([[[2, 1]]] * 8)
    assert result.value == pytest.approx(7 / 8)
    assert result.details["mean over pairs"] == pytest.approx(1)


def test_a_face_that_changes_scores_lower_the_faster_it_changes():
    def turning(angle):
        return [[[math.cos(angle * n), math.sin(angle * n)]] for n in range(10)]

    values = [measure(turning(angle)).value for angle in (0.0, 0.2, 0.6)]
    assert values[0] > values[1] > values[2]


def test_a_video_without_faces_has_no_score_and_says_why():
    result = measure([[], [], []])
    assert result.value is None and "no two neighbouring frames have faces" in result.note


def test_the_pieces_in_which_frames_come_change_nothing():
    features = [[[1, 0]], [[1, 1]], [], [[0, 1]], [[1, 2]]]
    assert measure(features, pieces=1) == measure(features, pieces=2) == measure(features)


def test_a_missing_or_broken_file_of_the_face_networks_is_named(tmp_path):
    pytest.importorskip("cv2")
    with pytest.raises(MissingWeights, match=r"face_detection_yunet.*re_id.detector=PATH"):
        make_metric("re_id")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ValueError, match="OpenCV cannot read"):
        make_metric("re_id", detector=broken, recognizer=broken)
