import pytest
import torch

from longvid.metrics.loops import Loops
from longvid.metrics.seams import Seams, every
from metrics_videos import grey, noisy, texture, translated, wandering


def measure(metric, video):
    metric.update(video)
    return metric.compute()


def test_a_video_that_repeats_has_all_later_frames_as_returns_and_its_period_as_lag():
    once = wandering(16)
    result = measure(Loops(), torch.cat([once] * 4))
    assert result.value == pytest.approx(3 / 4, abs=0.05)
    assert result.details["best lag in frames"] == 16
    assert result.details["depth at the best lag"] == pytest.approx(1, abs=1e-4)
    assert min(result.curve[16:]) == pytest.approx(1, abs=1e-4)


def test_a_video_that_never_comes_back_has_no_loops():
    assert measure(Loops(), wandering(64)).value == 0


def test_a_still_video_is_no_loop():
    assert measure(Loops(), texture()[None].expand(20, -1, -1, -1)).value == 0


def test_the_more_of_a_video_repeats_the_worse_its_number():
    once = wandering(64)
    values = [measure(Loops(), torch.cat([once[:length]] * (64 // length))).value for length in (64, 32, 16)]
    assert values[0] < values[1] < values[2]


def test_a_loop_is_found_through_noise():
    result = measure(Loops(), noisy(torch.cat([wandering(16)] * 3), 0.02))
    assert result.details["best lag in frames"] == 16 and result.value > 0.5


def test_returns_beyond_the_longest_lag_are_not_seen():
    video = torch.cat([wandering(16)] * 3)
    assert measure(Loops(max_lag=8), video).value == 0
    assert measure(Loops(max_lag=16), video).value > 0.5
    with pytest.raises(ValueError, match="at least 2"):
        Loops(max_lag=1)


def spliced(jump):
    """Even steps of 0.01, and one of `jump` in front of frame 12."""
    return grey(*[0.1 + 0.01 * frame + (jump - 0.01 if frame >= 12 else 0) for frame in range(24)])


@pytest.mark.parametrize("jump", [0.01, 0.02, 0.05, 0.2])
def test_a_spliced_video_has_the_seam_of_its_jump(jump):
    result = measure(Seams(borders=[12]), spliced(jump))
    assert result.value == pytest.approx(jump / 0.01, rel=1e-3)
    assert result.details["excess in grey levels"] == pytest.approx(255 * (jump - 0.01), abs=1e-2)


def test_the_worst_border_is_named_and_the_mean_is_over_all():
    result = measure(Seams(borders=[6, 12, 18, 90]), spliced(0.05))
    assert result.details["worst border"] == 12 and result.details["borders"] == 3
    assert result.value == pytest.approx((1 + 5 + 1) / 3, rel=1e-3)


def test_a_cut_between_two_scenes_is_a_seam_where_it_lies():
    video = torch.cat([translated(12, dx=1), translated(12, dx=1, seed=5)])
    at_cut = measure(Seams(borders=[12]), video)
    assert at_cut.details["frame after the largest step"] == 12
    assert at_cut.value > 1.5 * measure(Seams(borders=[6]), video).value


def test_without_borders_there_is_a_curve_and_no_value():
    result = measure(Seams(), spliced(0.2))
    assert result.value is None and "no chunk borders" in result.note and len(result.curve) == 23
    assert measure(Seams(borders=[100]), spliced(0.2)).value is None
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Seams(borders=[0, 4])


def test_borders_of_equal_chunks_are_counted_off():
    assert list(every(40, first=16, period=8)) == [16, 24, 32]
    with pytest.raises(ValueError, match="at least 1 frame"):
        every(40, first=0, period=8)
