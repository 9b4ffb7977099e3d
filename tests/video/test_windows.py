import itertools
import math
import sys
import time

import pytest

from longvid.video import Window, fit_windows, plan_windows

PLANS = [
    (num_frames, size, overlap, start)
    for num_frames in (1, 2, 7, 8, 9, 16, 23, 24, 25)
    for size in (1, 2, 5, 8, 16)
    for overlap in range(0, size, 3)
    for start in range(0, num_frames + 1, 4)
]


@pytest.fixture(scope="module")
def plans():
    return [(arguments, plan_windows(*arguments)) for arguments in PLANS]


def test_every_frame_is_new_in_exactly_one_window(plans):
    for (num_frames, _, _, start), windows in plans:
        new = [frame for window in windows for frame in range(window.new.start, window.new.stop)]
        assert new == list(range(start, num_frames))


def test_every_window_has_the_whole_size_and_adds_something(plans):
    for (_, size, _, _), windows in plans:
        assert all(window.stop - window.start == size and window.num_new >= 1 for window in windows)


def test_neighbours_share_exactly_the_overlap(plans):
    for (_, _, overlap, _), windows in plans:
        for before, after in itertools.pairwise(windows):
            assert after.overlap == overlap
            assert before.stop - after.start == overlap


def test_the_first_window_overlaps_only_frames_that_exist(plans):
    for (_, _, overlap, start), windows in plans:
        if windows:
            assert windows[0].overlap == min(overlap, start)
            assert windows[0].start >= 0


def test_only_the_last_window_reaches_behind_the_end(plans):
    for (num_frames, *_), windows in plans:
        assert all(window.excess == max(0, window.stop - num_frames) for window in windows)
        assert all(window.excess == 0 for window in windows[:-1])


def test_kept_frames_are_the_new_frames_counted_inside_the_window():
    for window in plan_windows(21, 8, 3):
        assert window.keep == slice(window.new.start - window.start, window.new.stop - window.start)
        assert window.frames == slice(window.start, window.stop)
        assert window.num_new == window.new.stop - window.new.start


def test_indices_count_from_zero_and_slices_keep_them():
    windows = plan_windows(100, 4)
    assert [window.index for window in windows] == list(range(25))
    assert [window.index for window in windows[20:]] == [20, 21, 22, 23, 24]
    assert windows[3:][1] == windows[4] == Window(4, 16, 20, 0)
    assert windows[-1] == windows[24]
    with pytest.raises(IndexError):
        windows[25]


def test_a_plan_of_a_quadrillion_frames_costs_nothing():
    began = time.perf_counter()
    windows = plan_windows(10**15, 16, 8)
    rest = windows[len(windows) - 2 :]
    assert len(rest) == 2
    assert rest[-1].new.stop == 10**15
    assert time.perf_counter() - began < 0.1


def test_a_video_without_end_has_windows_without_end():
    windows = plan_windows(math.inf, 16, 8)
    assert len(windows) == sys.maxsize
    assert windows[10**6 :][0] == Window(10**6, 8 * 10**6, 8 * 10**6 + 16, 8)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((0, 4), "num_frames must be a whole number of at least 1"),
        ((2.5, 4), "got 2.5"),
        ((math.nan, 4), "got nan"),
        ((8, 0), "window size must be at least 1; got 0"),
        ((8, 4, 4), "got overlap=4, size=4"),
        ((8, 4, -1), "got overlap=-1"),
        ((8, 4, 0, 9), "got start=9, num_frames=8"),
        ((8, 4, 2, 0, 3), "first_overlap must be at least 0 and at most the overlap, 2; got 3"),
    ],
)
def test_impossible_plans_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan_windows(*arguments)


@pytest.mark.parametrize("num_frames", [1, 8, 9, 16, 17, 40])
@pytest.mark.parametrize("start", [0, 1, 5])
def test_frames_from_before_the_video_open_the_first_window(num_frames, start):
    start = min(start, num_frames)
    windows = list(plan_windows(num_frames, 16, 8, start=start, first_overlap=8))
    assert [frame for window in windows for frame in range(num_frames)[window.new]] == list(range(start, num_frames))
    assert all(window.stop - window.start == 16 and window.overlap == 8 for window in windows)
    if windows:
        assert windows[0].start == start - 8


def test_fitted_windows_lie_inside_the_video_and_cover_every_frame_in_order():
    cases = [(frames, length, shared) for frames in range(1, 30) for length in (1, 5, 8) for shared in range(length)]
    for num_frames, size, overlap in cases:
        windows = fit_windows(num_frames, size, overlap)
        assert [f for window in windows for f in range(window.new.start, window.new.stop)] == list(range(num_frames))
        assert all(window.start >= 0 and window.excess == 0 and window.num_new >= 1 for window in windows)
        assert all(window.stop - window.start == min(size, num_frames) for window in windows)
        for before, after in itertools.pairwise(windows):
            assert before.stop - after.start == after.overlap >= overlap
        assert all(window.overlap == overlap for window in windows[1:-1])
        assert [window.index for window in windows] == list(range(len(windows)))


def test_fitted_windows_are_the_planned_ones_where_those_end_with_the_video():
    assert fit_windows(56, 24, 8) == tuple(plan_windows(56, 24, 8))
    with pytest.raises(ValueError, match="no last window"):
        fit_windows(math.inf, 24, 8)
