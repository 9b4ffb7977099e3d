"""What a run refuses leaves its folder as it was, byte for byte."""

from __future__ import annotations

import shutil

import pytest
import torch

import tiny_runs
from longvid import Run
from longvid.runs import begin
from longvid.runs.folder import digest_of
from tiny_runs import PROMPT, frames_of

STORY = {"num_frames": 4, "frames_per_prompt": 2, "negative_prompt": ["a square", "a blue circle"]}
LOSSLESS = {"codec": "ffv1", "chunk_frames": 2}
GUIDED = {"guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.art_v()


def made(pipe, path, prompt=(PROMPT, "a red square"), **options):
    generator = torch.Generator().manual_seed(3)
    return pipe.generate_to(path, prompt, generator=generator, **{**STORY, **GUIDED, **LOSSLESS, **options})


@pytest.fixture(scope="module")
def story(pipe, tmp_path_factory):
    """A finished run of two prompts with a negative prompt each; tests work on copies."""
    return made(pipe, tmp_path_factory.mktemp("story") / "run", [PROMPT, "a red square"])


@pytest.fixture
def copy(story, tmp_path):
    shutil.copytree(story.path, tmp_path / "copy")
    return Run(tmp_path / "copy")


def files_of(path):
    return {each.name: digest_of(each) for each in sorted(path.rglob("*")) if each.is_file()}


def test_a_story_with_negative_prompts_of_its_own_goes_on_with_the_last_of_them(pipe, copy, tmp_path):
    longer = copy.extend(pipe, num_frames=6, prompt="a blue square")
    assert longer.complete and longer.manifest.request["negative_prompt"] == [
        *STORY["negative_prompt"],
        "a blue circle",
    ]
    negatives = {"negative_prompt": [*STORY["negative_prompt"], "a blue circle"], "num_frames": 6}
    whole = made(pipe, tmp_path / "whole", [PROMPT, "a red square", "a blue square"], **negatives)
    assert torch.equal(frames_of(longer), frames_of(whole))
    assert Run(longer.path).extend(pipe, num_frames=7).num_made == 7


def test_one_negative_prompt_in_a_list_stays_that_of_every_prompt(pipe, tmp_path):
    run = made(pipe, tmp_path / "run", PROMPT, num_frames=2, frames_per_prompt=None, negative_prompt=["a square"])
    for num_frames in (4, 6):
        run.extend(pipe, num_frames=num_frames, prompt="a red square")
    assert run.complete and run.manifest.request["negative_prompt"] == ["a square"]


def test_embedded_negatives_do_not_reach_a_prompt_that_follows_and_nothing_is_lost(pipe, tmp_path):
    embeds = pipe.encode_prompt(PROMPT, "cpu")[0]
    options = {"negative_prompt": None, "negative_prompt_embeds": embeds, "num_frames": 3, "frames_per_prompt": None}
    run = made(pipe, tmp_path / "run", PROMPT, **options)
    before = files_of(run.path)
    with pytest.raises(ValueError, match="negative_prompt_embeds must be one for each of 2 prompts; got 1"):
        run.extend(pipe, num_frames=6, prompt="a blue square")
    assert files_of(run.path) == before
    assert Run(run.path).extend(pipe, num_frames=6).complete


def test_a_state_that_is_damaged_is_found_before_the_last_chunk_is_given_up(pipe, tmp_path):
    run = made(pipe, tmp_path / "run", PROMPT, num_frames=5, frames_per_prompt=None, negative_prompt=None)
    run._folder.state(1, run.manifest.chunks[1]).write_bytes(b"damaged")
    before = files_of(run.path)
    with pytest.raises(ValueError, match="is damaged: it has 7 bytes"):
        run.extend(pipe, num_frames=8)
    assert files_of(run.path) == before and Run(run.path).complete


@pytest.mark.parametrize("prompt", [3, ["a red square"], "a" * 100_001], ids=["number", "list", "endless"])
@pytest.mark.parametrize(
    ("method", "change"),
    [("extend", {"num_frames": 6}), ("reroll", {"chunk": 1, "seed": 4}), ("branch", {"from_chunk": 1})],
    ids=["extend", "reroll", "branch"],
)
def test_a_prompt_that_is_none_is_refused_before_anything_changes(pipe, copy, tmp_path, method, change, prompt):
    before = files_of(copy.path)
    where = tmp_path / "other" if method == "branch" else pipe
    with pytest.raises(ValueError, match="prompt must be a string"):
        getattr(copy, method)(where, prompt=prompt, **change)
    assert files_of(copy.path) == before and not (tmp_path / "other").exists()
    assert Run(copy.path).complete


@pytest.mark.parametrize("negatives", [{"negative_prompt": ["a", "b", "c"]}, {"negative_prompt_embeds": 3}])
def test_a_run_is_not_begun_with_another_number_of_negatives_than_prompts(pipe, tmp_path, negatives):
    if "negative_prompt_embeds" in negatives:
        negatives = {"negative_prompt_embeds": pipe.encode_prompt([PROMPT] * 3, "cpu")[0]}
    request = type(pipe).stream.request_type([PROMPT, PROMPT], num_frames=4, frames_per_prompt=2, **negatives)
    with pytest.raises(ValueError, match=r"for each of 2 prompts; got 3"):
        begin(tmp_path / "run", pipe, request)
    assert not (tmp_path / "run").exists()
