"""Micro-batches from a user's clips: what they hold, and that they depend on (seed, index) alone."""

from __future__ import annotations

import pytest
import torch

from longvid.training.art_v import ARTVRecipe
from longvid.training.captioned import (
    captioned_frames,
    captioned_histories,
    captioned_latents,
    captioned_pairs,
    check_captions,
    tokenizer_for,
)
from longvid.training.clip import CLIPRecipe
from longvid.training.data import Clip, DataOptions, find_clips
from longvid.training.frame_store import FrameStore, pixel_store
from longvid.training.unet import UNetRecipe
from longvid.training.vae import VAERecipe

CAPTIONS = ["a slow wave", "a quick wave, très beau"]


@pytest.fixture
def numbered(tmp_path):
    """Latents whose value is 100 x clip + frame; the clips have 2 and 30 frames."""
    clips = [Clip(tmp_path / str(number), caption) for number, caption in enumerate(CAPTIONS)]
    for clip in clips:
        clip.path.touch()
    lengths = {"0": 2, "1": 30}

    def read(clip):
        values = 100.0 * int(clip.path.name) + torch.arange(lengths[clip.path.name])
        return values.half()[:, None, None, None].expand(-1, 4, 2, 2)

    return FrameStore(tmp_path / "store", clips, "numbers", read)


@pytest.mark.parametrize("window", [1, 10])
def test_histories_are_the_frames_before_the_target_and_an_anchor_out_of_the_window(numbered, window):
    recipe = ARTVRecipe(batch_size=64, anchor_window=window, second_frames=0.0, first_frames=0.25)
    batches = captioned_histories(recipe, numbered, tokenizer_for(CAPTIONS))
    parts = [batches(index) for index in range(4)]
    target, references, anchor = (
        torch.cat([part[name] for part in parts]) for name in ("target", "references", "anchor")
    )
    target, references, anchor = target[:, 0, 0, 0], references[:, :, 0, 0, 0], anchor[:, 0, 0, 0]
    clip, frame = target // 100, target % 100
    assert set(frame[clip == 0].tolist()) == {1} and {1, 2, 29} <= set(frame[clip == 1].tolist())
    assert torch.equal(references[:, 0], target - 1)
    assert torch.equal(references[:, 1], 100 * clip + (frame - 2).clamp(min=0))
    back = target - anchor
    assert back.min() == 1 and back.max() == window and (anchor >= 100 * clip).all()
    assert 0.1 < torch.cat([part["first"] for part in parts]).float().mean() < 0.4


def test_the_second_frame_comes_as_often_as_the_recipe_says(numbered):
    recipe = ARTVRecipe(batch_size=64, second_frames=1.0)
    target = captioned_histories(recipe, numbered, tokenizer_for(CAPTIONS))(0)["target"]
    assert (target[:, 0, 0, 0] % 100).eq(1).all()


def test_every_source_depends_on_seed_and_index_alone(clips_folder, tmp_path, numbered):
    pixels = pixel_store(tmp_path, find_clips(clips_folder), DataOptions(height=32, width=32))
    tokenizer = tokenizer_for([clip.caption for clip in pixels.clips])
    sources = {
        "vae": lambda seed: captioned_frames(VAERecipe(seed=seed, batch_size=3), pixels),
        "clip": lambda seed: captioned_pairs(CLIPRecipe(seed=seed, num_frames=3, num_clips=2), pixels, tokenizer),
        "unet": lambda seed: captioned_latents(UNetRecipe(seed=seed, batch_size=8), numbered, tokenizer),
        "art_v": lambda seed: captioned_histories(ARTVRecipe(seed=seed, batch_size=8), numbered, tokenizer),
    }
    for name, source in sources.items():
        used, fresh = source(0), source(0)
        used(3), used(1)
        again, first = used(5), fresh(5)
        assert all(torch.equal(first[key], again[key]) for key in first), name
        assert not all(torch.equal(first[key], value) for key, value in fresh(6).items()), name
        assert not all(torch.equal(first[key], value) for key, value in source(1)(5).items()), name
    frames, pairs = sources["vae"](0)(0)["frames"], sources["clip"](0)(0)
    assert frames.shape == (3, 3, 32, 32) and frames.abs().max() <= 1
    assert pairs["clips"].shape == (2, 4, 3, 64, 64) and pairs["input_ids"].shape == (5, 77)


def test_every_word_of_the_captions_is_one_token_and_every_letter_is_known():
    tokenizer = tokenizer_for(CAPTIONS)
    for caption, length in (("a quick wave", 3), ("très", 4), ("日本 ü", 8)):
        ids = tokenizer(caption).input_ids
        assert tokenizer.eos_token_id not in ids[:-1]
        assert len(ids) == length + 2 or caption != "a quick wave"


def test_a_caption_that_is_too_long_is_found_before_the_training():
    captions = ["short"] * 1500 + ["word " * 76]
    with pytest.raises(ValueError, match="at most 75 tokens; 'word word .* has 76"):
        check_captions(tokenizer_for(captions), captions)
