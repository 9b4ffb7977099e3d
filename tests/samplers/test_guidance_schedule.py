import pytest
import torch
from diffusers import DDIMScheduler

from longvid.samplers import GuidanceSchedule, guided
from longvid.samplers.guidance_schedule import as_guidance_scale, can_guide


def test_the_papers_schedule_guides_seven_of_25_ddim_steps_more_strongly():
    scheduler, schedule = DDIMScheduler(steps_offset=1), GuidanceSchedule()
    scheduler.set_timesteps(25)
    scales = [schedule(float(t)) for t in scheduler.timesteps]
    assert scales == [12.5] * 7 + [7.5] * 18
    assert scheduler.timesteps[6] == 721


def test_two_high_scales_are_a_straight_line_between_t_and_the_border():
    schedule = GuidanceSchedule(high=(15.0, 10.0), low=5.0, until=0.5, num_train_timesteps=100)
    assert [schedule(t) for t in (100, 75, 50, 49.9, 0)] == [15.0, 12.5, 10.0, 5.0, 5.0]
    assert schedule(120) == 15.0
    assert GuidanceSchedule(high=[3, 2], until=1.0)(1000) == 3


def test_it_is_a_scale_of_guided():
    branches = [{"c": torch.ones(1)}, {"c": torch.zeros(1)}]
    schedule = GuidanceSchedule(high=4.0, low=2.0)
    predict = guided(lambda x, t, c: x * 0 + c["c"].reshape(-1, 1), branches, [lambda t: schedule(t) - 1])
    assert predict(torch.zeros(1, 1), torch.tensor(900)) == 4 and predict(torch.zeros(1, 1), torch.tensor(100)) == 2


def test_a_dictionary_describes_one_and_all_else_stays_what_it_is():
    assert as_guidance_scale({"high": [15, 10], "low": 3}) == GuidanceSchedule(high=[15, 10], low=3)
    schedule = GuidanceSchedule()
    assert as_guidance_scale(schedule) is schedule and as_guidance_scale(7.5) == 7.5 and as_guidance_scale(None) is None
    assert [can_guide(scale) for scale in (None, 1.0, 1.1, schedule)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high": -1}, "all scales at least 0; got high=-1"),
        ({"high": (1, 2, 3)}, r"one scale or two.*got high=\(1, 2, 3\)"),
        ({"low": "strong"}, "low='strong'"),
        ({"until": 700}, r"share of T in \[0, 1\]; got 700"),
        ({"num_train_timesteps": 0}, "at least 1; got 0"),
    ],
)
def test_what_is_no_schedule_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GuidanceSchedule(**options)
    with pytest.raises(ValueError, match=message):
        as_guidance_scale(options)


def test_a_field_that_a_schedule_lacks_is_refused():
    with pytest.raises(ValueError, match="a guidance schedule has high, low, until, num_train_timesteps; got until_t"):
        as_guidance_scale({"until_t": 3})
