from __future__ import annotations

import math

import pytest

from longvid.pipelines.prompts import plan_prompts


def plan(prompt, *, num_frames=None, frames_per_prompt=None, num_embeds=None):
    options = {"num_frames": num_frames, "frames_per_prompt": frames_per_prompt, "default_num_frames": 9}
    return plan_prompts(prompt, num_embeds, **options)


def test_a_string_is_one_video_of_the_default_length():
    assert plan("a").texts == (("a",),) and plan("a").num_frames == 9 and plan("a").starts == (0,)


def test_a_list_is_a_batch_as_in_diffusers():
    batch = plan(["a", "b"], num_frames=5)
    assert batch.num_videos == 2 and batch.texts == (("a",), ("b",)) and batch.num_segments == 1


def test_a_list_with_frames_per_prompt_is_one_long_video():
    story = plan(["a", "b", "c"], frames_per_prompt=4)
    assert story.num_videos == 1 and story.texts == (("a", "b", "c"),)
    assert story.num_frames == 12 and story.starts == (0, 4, 8)
    assert [story.segment(frame) for frame in (0, 3, 4, 7, 8, 11)] == [0, 0, 1, 1, 2, 2]


def test_every_prompt_can_have_its_own_number_of_frames():
    assert plan(["a", "b"], frames_per_prompt=[2, 5]).starts == (0, 2)
    assert plan(["a", "b"], frames_per_prompt=[2, 5]).num_frames == 7


def test_nested_lists_are_a_batch_of_long_videos_with_the_papers_16_frames():
    stories = plan([["a", "b"], ["c", "d"]])
    assert stories.num_videos == 2 and stories.num_frames == 32 and stories.flat_texts() == ["a", "b", "c", "d"]


def test_the_last_prompt_may_be_cut_short():
    assert plan(["a", "b"], frames_per_prompt=4, num_frames=5).num_frames == 5


@pytest.mark.parametrize("num_frames", [4, 9, math.inf])
def test_frames_that_do_not_match_the_prompts_are_refused(num_frames):
    with pytest.raises(ValueError, match="2 prompts of 4 frames each need num_frames from 5 to 8; got"):
        plan(["a", "b"], frames_per_prompt=4, num_frames=num_frames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": None}, "either prompt or prompt_embeds; got neither"),
        ({"prompt": "a", "num_embeds": 1}, "either prompt or prompt_embeds; got both"),
        ({"prompt": []}, "must be a string"),
        ({"prompt": [["a"], []]}, "must be a string"),
        ({"prompt": ["a", 3]}, "must be a string"),
        ({"prompt": 3}, "must be a string"),
        ({"prompt": [["a", "b"], ["c"]]}, r"the same number of prompts; got \[2, 1\]"),
        ({"prompt": ["a", "b"], "frames_per_prompt": [3]}, "names 1 segments for 2 prompts"),
        ({"prompt": ["a", "b"], "frames_per_prompt": 0}, "at least 1; got 0"),
        ({"prompt": ["a", "b"], "frames_per_prompt": [3, -1]}, "at least 1"),
    ],
)
def test_prompts_that_cannot_be_laid_out_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(**arguments)


def test_embeddings_are_a_batch_or_the_segments_of_one_video():
    assert plan(None, num_embeds=3).num_videos == 3
    story = plan(None, num_embeds=3, frames_per_prompt=2)
    assert story.num_videos == 1 and story.num_segments == 3
