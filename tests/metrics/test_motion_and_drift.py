import math

import pytest
import torch

from longvid.metrics.curves import ends, slope, start_end_contrast
from longvid.metrics.drift import (
    BrightnessDrift,
    ColorDrift,
    ContrastDrift,
    SaturationDrift,
    SharpnessDrift,
    lab,
    luma,
)
from longvid.metrics.flicker import Flicker
from longvid.metrics.motion import FlowDeviation, MotionAmount, Stagnation
from metrics_videos import brightness_flow, grey, one_way, texture, translated

DRIFTS = [BrightnessDrift, ContrastDrift, SaturationDrift, SharpnessDrift, ColorDrift]


def measure(metric, video):
    metric.update(video)
    return metric.compute()


def test_the_motion_is_the_mean_length_of_the_flow():
    result = measure(MotionAmount(flow=one_way(3, -4), flow_size=None), translated(4))
    assert result.value == pytest.approx(5) and result.curve == pytest.approx([5, 5, 5]) and result.curve_start == 1


def test_a_motion_that_grows_evenly_has_a_known_trend():
    levels = [0.1 + 0.001 * frame for frame in range(41)]
    result = measure(MotionAmount(flow=brightness_flow, flow_size=None), grey(*levels))
    assert result.details["trend in px per 100 frames"] == pytest.approx(1, rel=1e-3)


def test_a_video_that_comes_to_a_standstill_has_lost_all_its_motion():
    moving, slow, still = [0.5] * 20, [0.2] * 20, [0.0] * 20
    for end, loss in ((moving, 0.0), (slow, 0.6), (still, 1.0)):
        result = measure(Stagnation(flow=brightness_flow, flow_size=None), grey(*moving, *end))
        assert result.value == pytest.approx(loss, abs=1e-5)
    assert result.details["longest standstill in frames"] == 20


def test_a_video_that_gains_motion_has_lost_none():
    result = measure(Stagnation(flow=brightness_flow, flow_size=None), grey(*[0.2] * 20, *[0.4] * 20))
    assert result.value == 0 and result.details["relative change"] == pytest.approx(1, rel=1e-4)


def test_where_nothing_moves_at_the_start_there_is_no_motion_to_lose():
    result = measure(Stagnation(flow=one_way(0), flow_size=None), translated(4))
    assert result.value is None and "stands still" in result.note


def test_half_a_picture_that_moves_has_half_its_speed_as_deviation():
    def flow(a, b):
        field = torch.zeros(2, *a.shape[1:])
        field[0, :, a.shape[2] // 2 :] = 6.0
        return field

    result = measure(FlowDeviation(flow=flow, flow_size=None), translated(3))
    assert result.value == pytest.approx(3) and result.details["deviation of the mean over time"] == 0
    assert measure(FlowDeviation(flow=one_way(6), flow_size=None), translated(3)).value == pytest.approx(0)


def test_a_faded_video_has_the_drift_of_its_fade():
    still = texture()
    fade = torch.linspace(1, 0.5, 40)
    video = still[None] * fade.view(-1, 1, 1, 1)
    lost = float(fade[:6].mean() - fade[-6:].mean())
    assert measure(BrightnessDrift(), video).value == pytest.approx(lost * float(luma(still[None]).mean()), rel=1e-4)
    contrast = float(luma(still[None]).std(correction=0))
    assert measure(ContrastDrift(), video).value == pytest.approx(lost * contrast, rel=1e-4)
    result = measure(BrightnessDrift(), video)
    assert result.details["end"] < result.details["start"] and len(result.curve) == 40


@pytest.mark.parametrize("metric", DRIFTS)
def test_a_video_that_only_moves_does_not_drift(metric):
    assert measure(metric(), translated(30, dx=2)).value == pytest.approx(0, abs=0.05)  # edges come and go


@pytest.mark.parametrize("metric", DRIFTS)
def test_a_stronger_fade_is_a_worse_number(metric):
    def faded(strength):
        weights = torch.linspace(0, strength, 20).view(-1, 1, 1, 1)
        return torch.lerp(translated(20), torch.full((), 0.1), weights)

    values = [measure(metric(), faded(strength)).value for strength in (0.0, 0.3, 0.9)]
    assert values[0] < values[1] < values[2]


def test_known_colours_have_known_places_in_lab():
    colors = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]]).view(4, 3, 1, 1)
    expected = torch.tensor([[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]])
    torch.testing.assert_close(lab(colors).flatten(1), expected, rtol=0, atol=0.05)


def test_colours_drift_by_their_distance_in_lab():
    video = torch.cat([grey(0.2).expand(10, -1, -1, -1), grey(0.8).expand(10, -1, -1, -1)])
    first, last = lab(grey(0.2, 0.8)).mean((2, 3))
    result = measure(ColorDrift(), video)
    assert result.value == pytest.approx(float((last - first).norm()), rel=1e-5)
    assert result.curve[0] == pytest.approx(0, abs=1e-6) and result.curve[-1] == pytest.approx(result.value)


def test_blur_lowers_the_sharpness_of_the_end():
    sharp = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    result = measure(SharpnessDrift(), torch.cat([sharp.expand(10, -1, -1, -1), soft.expand(10, -1, -1, -1)]))
    assert result.details["end"] < 0.5 * result.details["start"]


def test_the_flicker_of_an_alternation_is_its_size():
    for size in (0.0, 0.02, 0.1):
        result = measure(Flicker(), grey(*[0.5 - size, 0.5 + size] * 6))
        assert result.value == pytest.approx(255 * size, abs=1e-3)
    assert result.details["temporal flickering as in VBench (1 is best)"] == pytest.approx(1 - 0.2, abs=1e-5)


def test_a_fade_is_no_flicker():
    assert measure(Flicker(), grey(*torch.linspace(0.1, 0.9, 20).tolist())).value == pytest.approx(0, abs=1e-3)


def test_the_start_and_the_end_are_fifteen_percent_and_at_least_one_number():
    curve = list(range(100))
    assert ends(curve) == (7.0, 92.0) and start_end_contrast(curve) == 85 and ends([3.0]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="expected numbers"):
        ends([])


def test_the_slope_is_that_of_the_least_squares_line():
    numpy = pytest.importorskip("numpy")
    curve = [math.sin(place) + 0.3 * place for place in range(17)]
    assert slope(curve) == pytest.approx(numpy.polyfit(range(17), curve, 1)[0])
    assert slope([1.0]) == 0
