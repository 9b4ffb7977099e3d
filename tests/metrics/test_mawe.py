from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longvid.metrics.flow import DISFlow
from longvid.metrics.mawe import MAWE, OpticalFlowScore, ReleasedMAWE, WarpError
from longvid.metrics.warp import splat, visible, warp_backward
from metrics_videos import constant_flow, grey, noisy, one_way, texture, translated

FIXTURE = Path(__file__).parents[1] / "fixtures" / "streaming_t2v" / "viii_mawe.safetensors"


def measure(metric, video):
    metric.update(video)
    return metric.compute()


@pytest.fixture(scope="module")
def official():
    return load_file(FIXTURE)


def test_pixels_are_thrown_forward_as_the_released_code_does(official):
    video = official["input.video_uint8"].float()
    for pair, flow in enumerate(official["input.flows"]):
        warped, known = splat(video[pair], flow)
        assert torch.equal(known.float(), official["expected.known_mask"][pair])
        assert torch.equal(warped, official["expected.warped"][pair])


def test_the_released_form_agrees_with_the_released_code(official):
    flows = iter(official["input.flows"])
    metric = ReleasedMAWE(flow=lambda a, b: next(flows), flow_size=None)
    result = measure(metric, official["input.video_uint8"] / 255)
    expected = official["expected.warp_error"] / (9.5 * official["expected.motion"])
    torch.testing.assert_close(torch.tensor(result.curve), expected, rtol=1e-5, atol=0)
    assert result.value == pytest.approx(float(official["expected.mawe"]), rel=1e-5)
    assert result.details["mean flow in px"] == pytest.approx(float(official["expected.motion"].mean()), rel=1e-5)
    assert result.details["warp error per colour"] == pytest.approx(
        float(official["expected.warp_error"].mean()), rel=1e-5
    )


def test_a_translated_texture_has_the_ofs_of_its_speed_and_no_warp_error():
    result = measure(MAWE(flow=constant_flow(3, -1), flow_size=None), translated(5, dx=3, dy=-1))
    assert result.details["ofs"] == pytest.approx(10)
    assert result.value == pytest.approx(0, abs=1e-6)
    inside = (24 - 3) * (24 - 1) / 24**2
    assert result.details["visible share of the pixels"] == pytest.approx(inside)


def test_a_brightness_that_alternates_has_the_mawe_of_its_size():
    video = translated(6, dx=2)
    video[1::2] += 0.1
    result = measure(MAWE(flow=constant_flow(2), flow_size=None), video)
    error = 3 * (0.1 * 255) ** 2
    assert result.details["warp_error"] == pytest.approx(error, rel=1e-4)
    assert result.value == pytest.approx(error / 4, rel=1e-4)


def test_noise_has_the_warp_error_of_its_variance():
    video = noisy(translated(4, dx=2, size=64), 0.05)
    error = measure(WarpError(flow=constant_flow(2), flow_size=None), video)
    assert error.value == pytest.approx(3 * 2 * (0.05 * 255) ** 2, rel=0.05)


def test_the_flow_found_in_a_translated_texture_gives_nearly_the_known_numbers():
    pytest.importorskip("cv2")
    video = translated(3, dx=2, dy=1, size=64)
    result = measure(MAWE(flow=DISFlow(), flow_size=None), video)
    assert result.details["ofs"] == pytest.approx(5, rel=0.15)
    assert result.value < 0.05 * measure(MAWE(flow=DISFlow(), flow_size=None), noisy(video, 0.05)).value


@pytest.mark.parametrize("metric", [MAWE, ReleasedMAWE, WarpError])
def test_more_noise_is_a_worse_number(metric):
    video = translated(4, dx=2)
    values = []
    for noise in (0.0, 0.03, 0.1):
        known = one_way(2) if metric is ReleasedMAWE else constant_flow(2)
        values.append(measure(metric(flow=known, flow_size=None), noisy(video, noise)).value)
    assert values == sorted(values) and values[0] < values[1] < values[2]


@pytest.mark.parametrize("metric", [MAWE, ReleasedMAWE])
def test_a_video_that_stands_still_has_no_mawe_and_says_so(metric):
    video = texture()[None].expand(4, -1, -1, -1)
    result = measure(metric(flow=one_way(0), flow_size=None), video)
    assert result.value is None and "stands still" in result.note
    assert measure(metric(flow=one_way(0), flow_size=None), video[:1]).value is None


def test_a_static_pair_is_left_out_of_the_released_form():
    flows = iter([one_way(0), one_way(2), one_way(0)])
    video = grey(0.2, 0.2, 0.3, 0.3)
    result = measure(ReleasedMAWE(flow=lambda a, b: next(flows)(a, b), flow_size=None), video)
    assert result.value == pytest.approx((0.1 * 255) ** 2 / (9.5 * 2), rel=1e-4)
    assert result.details["pairs that stand still"] == 2


def test_the_frames_are_resized_before_the_flow_is_asked():
    asked = []

    def flow(a, b):
        asked.append(a.shape)
        return torch.ones(2, *a.shape[1:])

    result = measure(OpticalFlowScore(flow=flow, flow_size=(40, 32)), translated(2))
    assert asked == [(3, 40, 32)] and result.value == pytest.approx(2) and "40 x 32" in result.note


def test_reading_backwards_undoes_a_shift():
    picture = texture()
    moved = picture.roll(3, 2)
    back = warp_backward(moved, one_way(3)(picture, moved))
    torch.testing.assert_close(back[:, :, :-3], picture[:, :, :-3], rtol=0, atol=1e-5)


def test_only_what_comes_home_inside_the_frame_is_visible():
    there = one_way(2)(texture(8), None)
    assert visible(there, -there).sum() == 8 * 6
    assert not visible(there, there).any()
