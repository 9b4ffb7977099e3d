"""The small grammar in which the built-in world is described, as a person would type it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from longvid.sprites.motion import track
from longvid.sprites.scene import SIZE, SYMMETRY_DEGREES, Scene, Sprite

MOTION_PHRASES: dict[str, str] = {
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "down": "moving down",
    "bouncing": "bouncing",
    "circling": "moving in a circle",
    "breathing": "growing and shrinking",
    "spinning": "spinning",
    "still": "standing still",
    "passing left": "passing to the left",
    "passing right": "passing to the right",
}
SPEED_WORDS: dict[str, str] = {"slow": "slowly", "normal": "", "fast": "quickly"}
PLACES: tuple[tuple[str, ...], ...] = (
    ("at the top left", "at the top", "at the top right"),
    ("at the left", "in the middle", "at the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
"""Place words of a 3 x 3 grid, row by row from the top."""
TENTHS = 10
"""Columns and rows of the grid that `grid_words` counts."""


@dataclass(frozen=True)
class Omissions:
    """Probability with which a caption leaves an attribute out; what it leaves out must be remembered by the model."""

    size: float = 0.4
    color: float = 0.06
    shape: float = 0.06
    motion: float = 0.05
    speed: float = 0.4
    background: float = 0.06
    background_color: float = 0.05
    background_style: float = 0.08


COMPLETE = Omissions(0, 0, 0, 0, 0, 0, 0, 0)


def place_words(x: float, y: float) -> str:
    """Name of the third of the picture that the point (x, y), in pixels, lies in; places outside go to the border."""
    column, row = (min(max(int(3 * value / SIZE), 0), 2) for value in (x, y))
    return PLACES[row][column]


def grid_words(x: float, y: float) -> str:
    """The point (x, y), in pixels, as column and row of a 10 x 10 grid from the top left: "at 0 9" is the bottom left corner."""
    column, row = (min(max(int(TENTHS * value / SIZE), 0), TENTHS - 1) for value in (x, y))
    return f"at {column} {row}"


def caption_clip(
    scene: Scene, seed: int | None = None, omit: Omissions | None = None, *, frame: int | None = None
) -> str:
    """Describe a whole video: "a small red star moving left slowly on a green striped background".

    With `seed` None nothing is left out and the article is "a"; otherwise attributes are left out at random as `omit` says.
    With `frame` it also says where every sprite is then (`grid_words`): "a red star moving left at 3 5".
    """
    rng, omit = random.Random(seed), COMPLETE if seed is None else (omit or Omissions())
    article = "the" if seed is not None and rng.random() < 0.1 else "a"
    parts = []
    for sprite in scene.sprites:
        size = "" if sprite.size == "medium" or sprite.motion == "breathing" or _drop(rng, omit.size) else sprite.size
        words = _subject(rng, omit, article, size, sprite)
        if not _drop(rng, omit.motion):
            words.append(MOTION_PHRASES[sprite.motion])
            if sprite.motion != "still" and not _drop(rng, omit.speed):
                words.append(SPEED_WORDS[sprite.speed])
        if frame is not None:
            state = track(sprite, 1, frame)
            words.append(grid_words(state.x.item(), state.y.item()))
        parts.append(" ".join(word for word in words if word))
    return _with_background(rng, omit, scene, " and ".join(parts))


def caption_frame(
    scene: Scene,
    frame: int = 0,
    seed: int | None = None,
    omit: Omissions | None = None,
    *,
    places: Callable[[float, float], str] = place_words,
) -> str:
    """Describe one frame by place and pose: "a red star at the top left on a green striped background".

    `places` says where the point (x, y), in pixels, is: `place_words`, or the finer `grid_words`.
    """
    rng, omit = random.Random(seed), COMPLETE if seed is None else (omit or Omissions())
    parts = []
    for sprite in scene.sprites:
        state = track(sprite, 1, frame)
        radius, angle = state.radius.item(), state.angle.item()
        size = "small" if radius < 10.5 else "large" if radius > 13.5 else ""
        words = _subject(rng, omit, "a", "" if _drop(rng, omit.size) else size, sprite)
        if not _drop(rng, omit.motion):
            words.append(places(state.x.item(), state.y.item()))
        if pose := pose_word(sprite.shape, angle):
            words.insert(1, pose)
        parts.append(" ".join(word for word in words if word))
    return _with_background(rng, omit, scene, " and ".join(parts))


def caption_story(segments: list[Scene], seed: int | None = None) -> list[str]:
    """One caption per segment: the first in full, then "the red circle bouncing" with the background left out."""
    captions = [caption_clip(segments[0], seed)]
    for scene in segments[1:]:
        captions.append(" and ".join(f"the {s.color} {s.shape} {MOTION_PHRASES[s.motion]}" for s in scene.sprites))
    return captions


def pose_word(shape: str, angle: float) -> str:
    """Say "tilted" when a shape is turned by more than a quarter of its symmetry, else nothing."""
    symmetry = SYMMETRY_DEGREES[shape]
    if not symmetry:
        return ""
    turned = angle % symmetry
    return "tilted" if symmetry / 4 < turned < 3 * symmetry / 4 else ""


def _subject(rng: random.Random, omit: Omissions, article: str, size: str, sprite: Sprite) -> list[str]:
    color = "" if _drop(rng, omit.color) else sprite.color
    shape = "shape" if _drop(rng, omit.shape) else sprite.shape
    first = size or color or shape
    article = "an" if article == "a" and first[0] in "aeiou" else article
    if size == "large" and rng.random() < 0.3 and omit is not COMPLETE:
        size = "big"
    return [article, size, color, shape]


def _with_background(rng: random.Random, omit: Omissions, scene: Scene, subject: str) -> str:
    if _drop(rng, omit.background):
        return subject
    color = "" if _drop(rng, omit.background_color) else scene.background_color
    style = "" if _drop(rng, omit.background_style) else scene.background_style
    return " ".join(word for word in (subject, "on a", color, style, "background") if word)


def _drop(rng: random.Random, probability: float) -> bool:
    return rng.random() < probability


def vocabulary() -> list[str]:
    """Every word the grammar can say, sorted."""
    words = {"a", "an", "the", "and", "on", "background", "big", "tilted", "shape", *map(str, range(TENTHS))}
    phrases = [*MOTION_PHRASES.values(), *SPEED_WORDS.values(), *(place for row in PLACES for place in row)]
    from longvid.sprites.scene import BACKGROUND_COLORS, RADII, SHAPES, SPRITE_COLORS, STYLES

    for phrase in (*phrases, *SHAPES, *SPRITE_COLORS, *BACKGROUND_COLORS, *STYLES, "small", "large", *RADII):
        words.update(phrase.split())
    return sorted(words - {"medium"})
