"""Captions say only what is true."""

from __future__ import annotations

import pytest
import torch

from longvid.sprites import (
    MOTIONS,
    PASSING,
    SIZE,
    Scene,
    caption_clip,
    caption_frame,
    caption_story,
    sample_scene,
    track,
    vocabulary,
)
from longvid.sprites.captions import (
    MOTION_PHRASES,
    PLACES,
    SPEED_WORDS,
    Omissions,
    grid_words,
    place_words,
    pose_word,
)
from longvid.sprites.scene import BACKGROUND_COLORS, RADII, SHAPES, SPRITE_COLORS, STYLES, SYMMETRY_DEGREES


def scenes(count: int, **options) -> list[Scene]:
    return [sample_scene(s, split=None, motions=MOTIONS + PASSING, two_sprites=0.4, **options) for s in range(count)]


def subjects_and_ground(caption: str) -> tuple[list[str], str]:
    """The parts of a caption about each sprite, and the words about the background."""
    before, _, ground = caption.partition(" on a ")
    joined = before.replace("growing and shrinking", "growing&shrinking").split(" and ")
    return [part.replace("growing&shrinking", "growing and shrinking") for part in joined], ground


def test_a_complete_caption_reads_as_a_person_would_type_it():
    scene = sample_scene(3, num_sprites=1, motions=("left",))
    s = scene.sprites[0]
    size, speed = "" if s.size == "medium" else f"{s.size} ", f" {SPEED_WORDS[s.speed]}" if SPEED_WORDS[s.speed] else ""
    article = "an" if (size or s.color)[0] in "aeiou" else "a"
    expected = f"{article} {size}{s.color} {s.shape} moving left{speed}"
    assert caption_clip(scene) == f"{expected} on a {scene.background_color} {scene.background_style} background"


def test_every_word_of_a_clip_caption_is_true_of_its_scene():
    for seed, scene in enumerate(scenes(400)):
        parts, ground = subjects_and_ground(caption_clip(scene, seed))
        assert len(parts) == len(scene.sprites)
        assert set(ground.split()) <= {scene.background_color, scene.background_style, "background"}
        for part, sprite in zip(parts, scene.sprites, strict=True):
            allowed = {"a", "an", "the", "shape", sprite.size, sprite.color, sprite.shape}
            allowed |= set(MOTION_PHRASES[sprite.motion].split()) | {SPEED_WORDS[sprite.speed]}
            allowed |= {"big"} if sprite.size == "large" else set()
            assert set(part.split()) <= allowed, (part, sprite)


def test_a_complete_caption_leaves_nothing_out():
    for scene in scenes(100):
        caption = caption_clip(scene)
        for sprite in scene.sprites:
            assert f"{sprite.color} {sprite.shape} {MOTION_PHRASES[sprite.motion]}" in caption
        assert caption.endswith(f"on a {scene.background_color} {scene.background_style} background")


def test_attributes_are_left_out_as_often_as_asked():
    never = [caption_clip(scene, seed, Omissions(background=1.0)) for seed, scene in enumerate(scenes(50))]
    assert not any("background" in caption for caption in never)
    captions = [caption_clip(scene, seed, Omissions(background=0.5)) for seed, scene in enumerate(scenes(300))]
    assert 0.4 < sum("background" in caption for caption in captions) / 300 < 0.6


def test_frame_captions_name_the_place_and_pose_the_frame_shows():
    for index, scene in enumerate(scenes(300)):
        frame = index % 40
        parts, _ = subjects_and_ground(caption_frame(scene, frame))
        for part, sprite in zip(parts, scene.sprites, strict=True):
            state = track(sprite, 1, frame)
            assert part.endswith(place_words(state.x.item(), state.y.item()))
            assert ("tilted" in part) == bool(pose_word(sprite.shape, state.angle.item()))
            assert f"{sprite.color} {sprite.shape}" in part
            assert ("small" in part) == (state.radius.item() < 10.5)
            assert ("large" in part) == (state.radius.item() > 13.5)


def test_the_nine_places_tile_the_picture():
    named = {place_words(x + 0.5, y + 0.5) for x in range(SIZE) for y in range(SIZE)}
    assert named == {place for row in PLACES for place in row}
    assert place_words(2, 2) == "at the top left" and place_words(62, 62) == "at the bottom right"
    assert place_words(32, 32) == "in the middle" and place_words(2, 32) == "at the left"
    assert place_words(-20, 32) == "at the left" and place_words(90, 32) == "at the right"


def test_the_hundred_places_of_the_grid_tile_the_picture():
    named = {grid_words(x + 0.5, y + 0.5) for x in range(SIZE) for y in range(SIZE)}
    assert named == {f"at {column} {row}" for column in range(10) for row in range(10)}
    assert grid_words(1, 63) == "at 0 9" and grid_words(32.1, 6.3) == "at 5 0"
    assert grid_words(-20, 90) == "at 0 9"
    scene = sample_scene(3, num_sprites=1)
    words, grid = caption_frame(scene, 5), caption_frame(scene, 5, places=grid_words)
    state = track(scene.sprites[0], 1, 5)
    x, y = state.x.item(), state.y.item()
    assert words.replace(place_words(x, y), grid_words(x, y)) == grid and set(grid.split()) <= set(vocabulary())


def test_a_clips_caption_can_say_where_its_sprites_are_in_a_frame():
    for index, scene in enumerate(scenes(100)):
        said, _ = subjects_and_ground(caption_clip(scene, index))
        parts, _ = subjects_and_ground(caption_clip(scene, index, frame=index % 24))
        for part, before, sprite in zip(parts, said, scene.sprites, strict=True):
            state = track(sprite, 1, index % 24)
            assert part == f"{before} {grid_words(state.x.item(), state.y.item())}"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_turned_by_its_symmetry_is_not_tilted_and_by_half_of_it_is(shape):
    symmetry = SYMMETRY_DEGREES[shape]
    assert pose_word(shape, 0.0) == pose_word(shape, 3 * symmetry) == ""
    assert pose_word(shape, symmetry / 2) == ("tilted" if symmetry else "")


def test_a_story_names_the_same_sprite_in_every_segment_and_the_background_once():
    scene = sample_scene(1, num_sprites=1, motions=("right",))
    moved = sample_scene(1, num_sprites=1, motions=("right",))
    captions = caption_story([scene, moved])
    identity = f"{scene.sprites[0].color} {scene.sprites[0].shape}"
    assert all(identity in caption for caption in captions)
    assert "background" in captions[0] and captions[1] == f"the {identity} moving right"


def test_the_vocabulary_holds_every_word_that_is_ever_said():
    words = set(vocabulary())
    for seed, scene in enumerate(scenes(300)):
        story = " ".join(caption_story([scene, scene]))
        said = f"{caption_clip(scene, seed)} {caption_frame(scene, seed % 30, seed)} {story}"
        assert set(said.split()) <= words
    assert {*SHAPES, *SPRITE_COLORS, *BACKGROUND_COLORS, *STYLES, *RADII} - {"medium"} <= words
    assert vocabulary() == sorted(words)


def test_captions_are_the_same_for_the_same_seed():
    scene = sample_scene(5)
    torch.manual_seed(0)
    first = [caption_clip(scene, seed) for seed in range(20)]
    assert first == [caption_clip(scene, seed) for seed in range(20)]
    assert len(set(first)) > 3
