"""What holds for every metric without weights."""

import array
import sys

import numpy as np
import pytest
import torch

from longvid.metrics import METRICS, Metric, make_metric
from longvid.metrics.base import accepted_options
from metrics_videos import brightness_flow, noisy, wandering

FREE = (
    "mawe", "mawe_released", "warp_error", "ofs", "motion", "stagnation", "flow_std", "seams", "flicker", "loops",
    "brightness_drift", "contrast_drift", "saturation_drift", "sharpness_drift", "color_drift",
)  # fmt: skip
OPTIONS = {"flow": brightness_flow, "flow_size": None, "borders": [4, 8]}


def build(name):
    return make_metric(name, **accepted_options(name, OPTIONS))


def measure(name, *parts):
    metric = build(name)
    for part in parts:
        metric.update(part)
    return metric.compute()


@pytest.mark.parametrize("name", FREE)
def test_how_the_video_is_cut_does_not_matter(name):
    video = noisy(wandering(13), 0.02)
    whole = measure(name, video)
    for cuts in ([1] * 13, [5, 8], [1, 11, 1]):
        assert measure(name, *video.split(cuts)) == whole


@pytest.mark.parametrize("name", FREE)
def test_a_result_can_be_asked_for_at_any_time(name):
    video = wandering(9)
    metric = build(name)
    metric.update(video[:5])
    assert metric.compute() == measure(name, video[:5])
    metric.update(video[5:])
    assert metric.compute() == measure(name, video)


@pytest.mark.parametrize("name", FREE)
def test_the_frames_are_not_kept_or_changed(name):
    video = wandering(6)
    mine, metric = video.clone(), build(name)
    metric.update(mine[:3])
    assert torch.equal(mine, video)
    last = mine[3:].clone()
    mine.zero_()
    metric.update(last)
    assert metric.compute() == measure(name, video)


@pytest.mark.parametrize("name", FREE)
def test_memory_grows_by_a_few_scalars_per_frame_at_most(name):
    metric, sizes = build(name), []
    for part in noisy(wandering(80), 0.02).split(40):
        metric.update(part)
        sizes.append(size_of(metric, set()))
    assert sizes[1] - sizes[0] <= 40 * 48


@pytest.mark.parametrize("name", FREE)
def test_what_is_no_video_is_refused(name):
    for wrong in (
        torch.zeros(3, 16, 16), torch.zeros(2, 1, 16, 16), torch.zeros(0, 3, 16, 16), torch.full((2, 3, 16, 16), 1.5),
        torch.full((2, 3, 16, 16), torch.nan), torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            build(name).update(wrong)
    metric = build(name)
    metric.update(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="one size"):
        metric.update(torch.zeros(1, 3, 16, 20))


@pytest.mark.parametrize("name", FREE)
def test_one_frame_is_too_short_and_the_result_says_so(name):
    result = measure(name, wandering(1))
    assert result.value is None and "at least" in result.note


@pytest.mark.parametrize("name", FREE)
def test_the_result_carries_the_name_and_plain_words_stand_with_the_class(name):
    metric = build(name)
    assert isinstance(metric, Metric) and metric.name == name and len(metric.about) > 40
    metric.update(wandering(12))
    result = metric.compute()
    assert result.name == name
    assert all(isinstance(value, (float, str)) for value in result.details.values())
    assert all(isinstance(value, float) for value in result.curve)


def test_an_unknown_metric_or_option_is_named():
    assert set(FREE) <= set(METRICS)
    with pytest.raises(ValueError, match="did you mean 'flicker'"):
        make_metric("flickr")
    with pytest.raises(ValueError, match="takes the options borders; got speed"):
        make_metric("seams", speed=3)


def size_of(thing, seen):
    """Bytes behind an object, everything it holds included."""
    if id(thing) in seen or callable(thing):
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes()
    if isinstance(thing, (array.array, np.ndarray)):
        return len(memoryview(thing).cast("B")) if isinstance(thing, array.array) else thing.nbytes
    if isinstance(thing, dict):
        return sum(size_of(value, seen) for value in thing.values())
    if isinstance(thing, (list, tuple, set)) or type(thing).__name__ == "deque":
        return sum(size_of(value, seen) for value in thing)
    return sys.getsizeof(thing) + (size_of(vars(thing), seen) if hasattr(thing, "__dict__") else 0)
