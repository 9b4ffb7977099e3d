"""Laws of the drawn world: closed forms, areas, the torus, the split."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from longvid.sprites import (
    FPS,
    MOTIONS,
    PASSING,
    SIZE,
    Scene,
    Sprite,
    continue_scene,
    draw,
    draw_background,
    sample_scene,
    track,
)
from longvid.sprites.draw import background_shade, coverage
from longvid.sprites.judge_shapes import AREAS
from longvid.sprites.motion import BREATH_PERIODS, ORBIT_RADIUS, SPIN_DEGREES
from longvid.sprites.scene import (
    BACKGROUND_COLORS,
    DIRECTIONS,
    RADII,
    SHAPES,
    SPEEDS,
    SPRITE_COLORS,
    STYLES,
    SYMMETRY_DEGREES,
)


def sprite(motion: str, speed: str = "normal", **fields) -> Sprite:
    base = Sprite(shape="square", color="red", size="small", motion=motion, speed=speed, x=20.0, y=30.0)
    return replace(base, **fields)


def scene_of(*sprites: Sprite) -> Scene:
    return Scene("gray", "solid", sprites)


def test_the_same_seed_gives_the_same_scene_and_the_same_pixels():
    for seed in range(5):
        one, two = sample_scene(seed), sample_scene(seed)
        assert one == two
        assert torch.equal(draw(one, 3), draw(two, 3))
    assert len({sample_scene(seed) for seed in range(50)}) == 50


def test_drawing_has_the_promised_shape_and_range_and_does_not_depend_on_the_batch():
    scenes = [sample_scene(seed, motions=MOTIONS + PASSING, two_sprites=0.5) for seed in range(8)]
    together = draw(scenes, 6)
    assert together.shape == (8, 3, 6, SIZE, SIZE) and together.dtype == torch.float32
    assert together.min() >= 0 and together.max() <= 1
    for row, scene in enumerate(scenes):
        assert torch.equal(together[row], draw(scene, 6)[0])


def test_a_window_of_a_long_video_is_drawn_as_part_of_the_whole():
    scenes = [sample_scene(seed, motions=MOTIONS + PASSING) for seed in range(12)]
    assert torch.allclose(draw(scenes, 20)[:, :, 13:], draw(scenes, 7, start=13), atol=1e-4)


def test_drawing_needs_a_scene_and_a_frame():
    for scenes, frames in (([], 4), (sample_scene(0), 0)):
        with pytest.raises(ValueError, match="at least one scene and one frame"):
            draw(scenes, frames)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("speed", SPEEDS)
def test_straight_motion_advances_by_its_speed_and_wraps_round_the_torus(direction, speed):
    made = track(sprite(direction, speed), 200)
    dx, dy = DIRECTIONS[direction]
    t = torch.arange(200)
    assert torch.allclose(made.x, (20 + dx * SPEEDS[speed] * t) % SIZE, atol=1e-3)
    assert torch.allclose(made.y, (30 + dy * SPEEDS[speed] * t) % SIZE, atol=1e-3)
    assert made.x.min() >= 0 and made.x.max() < SIZE + 1e-3


def test_a_sprite_that_leaves_on_one_side_is_seen_on_the_other():
    still = sprite("still", x=0.0, y=30.0)
    video = draw(scene_of(still), 1)[0, :, 0]
    moved = draw(scene_of(replace(still, x=32.0)), 1)[0, :, 0]
    assert torch.allclose(video.roll(32, dims=-1), moved, atol=1e-5)


def test_after_one_lap_of_the_torus_the_video_repeats():
    video = draw(scene_of(sprite("right", "fast")), 17)[0]
    assert torch.allclose(video[:, 0], video[:, 16], atol=1e-4)


@pytest.mark.parametrize("heading", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_a_bouncing_sprite_stays_inside_and_moves_evenly_between_walls(heading):
    made = track(sprite("bouncing", "fast", heading=heading), 400)
    low, high = RADII["small"], SIZE - RADII["small"]
    for position, step in ((made.x, 0.8 * SPEEDS["fast"]), (made.y, 0.6 * SPEEDS["fast"])):
        assert position.min() >= low - 1e-3 and position.max() <= high + 1e-3
        moves = position.diff().abs()
        assert moves.max() <= step + 1e-3
        assert moves.median() == pytest.approx(step, abs=1e-3)
    assert math.copysign(1, made.x[1] - made.x[0]) == heading[0]
    assert math.copysign(1, made.y[1] - made.y[0]) == heading[1]


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_circling_sprite_keeps_its_distance_from_the_middle_of_its_orbit(speed):
    circling = sprite("circling", speed, phase=0.7)
    made = track(circling, 100)
    middle_x, middle_y = 20 - ORBIT_RADIUS * math.cos(0.7), 30 - ORBIT_RADIUS * math.sin(0.7)
    dx, dy = ((p - m + 32) % SIZE - 32 for p, m in ((made.x, middle_x), (made.y, middle_y)))
    assert torch.allclose(torch.hypot(dx, dy), torch.tensor(ORBIT_RADIUS), atol=1e-3)
    turn = torch.atan2(dy, dx).diff()
    assert torch.allclose(
        (turn + math.pi) % (2 * math.pi) - math.pi, torch.tensor(SPEEDS[speed] / ORBIT_RADIUS), atol=1e-3
    )


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_breathing_sprite_grows_and_shrinks_between_8_and_16_and_never_stops(speed):
    period = int(BREATH_PERIODS[speed])
    made = track(sprite("breathing", speed, phase=1.0), 10 * period)
    assert made.radius.min() >= 8 - 1e-3 and made.radius.max() <= 16 + 1e-3
    assert torch.allclose(made.radius[:period], made.radius[-period:], atol=1e-3)
    assert made.radius[:period].mean() == pytest.approx(12, abs=0.05)


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_spinning_sprite_turns_by_less_than_half_its_symmetry_per_frame(speed):
    made = track(sprite("spinning", speed), 30)
    assert torch.allclose(made.angle.diff(), torch.tensor(SPIN_DEGREES[speed]), atol=1e-3)
    assert 2 * SPIN_DEGREES[speed] < min(s for s in SYMMETRY_DEGREES.values() if s)


def test_a_still_sprite_does_not_change():
    video = draw(scene_of(sprite("still")), 10)
    assert torch.equal(video, video[:, :, :1].expand_as(video))


@pytest.mark.parametrize("motion", PASSING)
@pytest.mark.parametrize("gap", [12, 40])
def test_a_passing_sprite_is_out_of_sight_for_its_gap_and_comes_back_the_same(motion, gap):
    scene = scene_of(sprite(motion, gap=gap))
    video = draw(scene, 200)[0]
    empty = (video == draw_background(scene)[:, None]).all(0).flatten(1).all(1).tolist()
    runs = [(key, len(list(group))) for key, group in itertools.groupby(empty)]
    absences = [length for key, length in runs[1:-1] if key]
    assert absences and all(gap - 1 <= length <= gap + 1 for length in absences)
    step = -1 if motion.endswith("left") else 1
    made = track(scene.sprites[0], 3)
    assert torch.allclose(made.x.diff(), torch.tensor(step * SPEEDS["normal"]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [8.0, 12.0, 16.0])
def test_anti_aliased_coverage_sums_to_the_area_of_the_shape(shape, radius):
    line = torch.arange(SIZE) + 0.5
    dy, dx = torch.meshgrid(line - 31.7, line - 32.2, indexing="ij")
    for angle in (0.0, 17.0, 40.0):
        covered = coverage(shape, dx, dy, torch.tensor(radius), torch.tensor(angle))
        assert covered.min() >= 0 and covered.max() <= 1
        assert covered.sum().item() == pytest.approx(AREAS[shape] * radius**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_by_its_symmetry_leaves_a_shape_as_it_is(shape):
    line = torch.arange(SIZE) - 31.5
    dy, dx = torch.meshgrid(line, line, indexing="ij")
    turns = [coverage(shape, dx, dy, torch.tensor(12.0), torch.tensor(a)) for a in (5.0, 5.0 + SYMMETRY_DEGREES[shape])]
    assert torch.allclose(*turns, atol=1e-3)


def test_an_unknown_shape_or_style_is_refused_by_name():
    zero = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="'blob'"):
        coverage("blob", zero, zero, torch.tensor(1.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match="'dotted'"):
        background_shade("dotted")


def test_a_tenth_of_all_combinations_is_held_out():
    combinations = itertools.product(SHAPES, SPRITE_COLORS, MOTIONS, BACKGROUND_COLORS, STYLES)
    splits = []
    for shape, color, motion, background, style in combinations:
        splits.append(Scene(background, style, (sprite(motion, shape=shape, color=color),)).split)
    assert 0.09 < splits.count("held_out") / len(splits) < 0.11


def test_training_never_draws_what_is_held_out():
    train = {sample_scene(seed, split="train").combination for seed in range(1500)}
    held_out = {sample_scene(seed, split="held_out").combination for seed in range(300)}
    assert not train & held_out
    assert all(sample_scene(seed, split="held_out").split == "held_out" for seed in range(20))


def test_scenes_are_legible():
    for seed in range(400):
        scene = sample_scene(seed, split=None, motions=MOTIONS + PASSING, two_sprites=0.5)
        colors, shapes = [s.color for s in scene.sprites], [s.shape for s in scene.sprites]
        assert scene.background_color not in colors
        assert len(set(colors)) == len(colors) and len(set(shapes)) == len(shapes)
        assert not any(s.motion == "spinning" and s.shape == "circle" for s in scene.sprites)


def test_a_scene_asked_for_wrongly_is_refused():
    for options, message in (
        ({"split": "test"}, "split must be"),
        ({"num_sprites": 3}, "num_sprites must be"),
        ({"motions": ("sideways",)}, "motions must be"),
        ({"motions": ()}, "motions must be"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_scene(0, **options)


def test_a_story_goes_on_where_the_segment_before_ended_with_the_same_identity():
    for seed in range(40):
        scene = sample_scene(seed, motions=("right", "circling", "bouncing"))
        ends = [track(s, 1, 2 * FPS) for s in scene.sprites]
        states = [(e.x.item(), e.y.item(), e.angle.item()) for e in ends]
        after = continue_scene(scene, ("up", "still", "circling"), states, seed)
        assert (after.background_color, after.background_style, after.tint) == (
            scene.background_color, scene.background_style, scene.tint,
        )  # fmt: skip
        for before, now, end in zip(scene.sprites, after.sprites, ends, strict=True):
            same = ("shape", "color", "size", "tint")
            assert all(getattr(before, name) == getattr(now, name) for name in same)
            begin = track(now, 1)
            gap = torch.stack([begin.x - end.x, begin.y - end.y])
            assert ((gap + 32) % SIZE - 32).abs().max() < 1e-3
