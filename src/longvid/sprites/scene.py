"""Scenes of the built-in world: what is drawn, sampled from an integer seed."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace
from typing import Literal

SIZE = 64
"""Height and width of the world in pixels; positions live on a torus of this side."""
FPS = 8

Shape = Literal["circle", "square", "triangle", "star", "cross"]
Split = Literal["train", "held_out"]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
SPRITE_COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.10, 0.85, 0.20),
    "blue": (0.10, 0.20, 0.95),
    "purple": (0.60, 0.10, 0.80),
    "white": (0.98, 0.98, 0.98),
    "black": (0.03, 0.03, 0.03),
}
BACKGROUND_COLORS: dict[str, tuple[float, float, float]] = {
    "blue": (0.45, 0.65, 0.90),
    "green": (0.45, 0.65, 0.42),
    "gray": (0.58, 0.58, 0.58),
    "brown": (0.52, 0.36, 0.22),
    "pink": (0.96, 0.66, 0.76),
    "teal": (0.20, 0.50, 0.52),
}
STYLES: tuple[str, ...] = ("solid", "gradient", "checkered", "striped")
RADII: dict[str, float] = {"small": 9.0, "medium": 12.0, "large": 15.0}
SPEEDS: dict[str, float] = {"slow": 1.5, "normal": 2.5, "fast": 4.0}
"""Pixels per frame of every motion that travels."""
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS: tuple[str, ...] = (*DIRECTIONS, "bouncing", "circling", "breathing", "spinning", "still")
PASSING: tuple[str, ...] = ("passing left", "passing right")
"""Motions that leave the frame for 12 to 40 frames and come back."""
SYMMETRY_DEGREES: dict[str, float] = {"circle": 0.0, "square": 90.0, "triangle": 120.0, "star": 72.0, "cross": 90.0}
"""Smallest rotation that maps a shape onto itself (0: every rotation does)."""
HELD_OUT_SHARE = 10


@dataclass(frozen=True)
class Sprite:
    """One moving shape. Positions in pixels, angles in degrees (clockwise on screen), phases in radians."""

    shape: str
    color: str
    size: str
    motion: str
    speed: str
    x: float
    y: float
    angle: float = 0.0
    phase: float = 0.0
    heading: tuple[int, int] = (1, 1)
    gap: int = 24
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def radius(self) -> float:
        return RADII[self.size]

    @property
    def pixels_per_frame(self) -> float:
        return SPEEDS[self.speed]


@dataclass(frozen=True)
class Scene:
    """A background and the sprites on it, the last one in front."""

    background_color: str
    background_style: str
    sprites: tuple[Sprite, ...]
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def combination(self) -> tuple[str, ...]:
        """The attributes that the held-out split is made on: first sprite's shape, colour, motion, and the background."""
        first = self.sprites[0]
        return first.shape, first.color, first.motion, self.background_color, self.background_style

    @property
    def split(self) -> Split:
        """`"held_out"` for the tenth of all attribute combinations that training never draws (a fixed hash)."""
        value = zlib.crc32("|".join(self.combination).encode())
        return "held_out" if value % HELD_OUT_SHARE == 0 else "train"


def sample_scene(
    seed: int,
    *,
    split: Split | None = "train",
    num_sprites: int | None = None,
    motions: tuple[str, ...] = MOTIONS,
    two_sprites: float = 0.15,
) -> Scene:
    """Draw a scene at random; the same arguments always give the same scene.

    Args:
        seed: Any integer.
        split: `"train"`, `"held_out"` or None (either).
        num_sprites: 1 or 2; None draws two with probability `two_sprites`.
        motions: The motions to choose from, of `MOTIONS` and `PASSING`.

    Raises:
        ValueError: for an unknown split or motion, or a number of sprites other than 1 and 2.
    """
    if split not in ("train", "held_out", None):
        raise ValueError(f"split must be 'train', 'held_out' or None; got {split!r}")
    if num_sprites not in (1, 2, None):
        raise ValueError(f"num_sprites must be 1, 2 or None; got {num_sprites!r}")
    unknown = set(motions) - set(MOTIONS) - set(PASSING)
    if unknown or not motions:
        raise ValueError(f"motions must be some of {MOTIONS + PASSING}; got {motions!r}")
    rng = random.Random(seed)
    while True:
        count = num_sprites or (2 if rng.random() < two_sprites else 1)
        background = rng.choice(list(BACKGROUND_COLORS))
        sprites = [_sample_sprite(rng, background, motions) for _ in range(count)]
        if count == 2 and (sprites[0].color == sprites[1].color or sprites[0].shape == sprites[1].shape):
            continue
        scene = Scene(background, rng.choice(STYLES), tuple(sprites), _tint(rng, 0.02))
        if split is None or scene.split == split:
            return scene


def continue_scene(
    scene: Scene, motions: tuple[str, ...], states: list[tuple[float, float, float]], seed: int
) -> Scene:
    """The same identities with new motions, starting where `states` (x, y, angle per sprite) left them."""
    rng = random.Random(seed)
    sprites = []
    for sprite, (x, y, angle) in zip(scene.sprites, states, strict=True):
        motion = rng.choice([m for m in motions if not (m == "spinning" and sprite.shape == "circle")])
        fresh = replace(sprite, motion=motion, x=x % SIZE, y=y % SIZE, angle=angle, phase=0.0)
        if motion == "bouncing":
            low, high = sprite.radius, SIZE - sprite.radius
            fresh = replace(fresh, x=min(max(fresh.x, low), high), y=min(max(fresh.y, low), high))
        sprites.append(fresh)
    return replace(scene, sprites=tuple(sprites))


def _sample_sprite(rng: random.Random, background: str, motions: tuple[str, ...]) -> Sprite:
    motion = rng.choice(motions)
    shape = rng.choice([s for s in SHAPES if not (motion == "spinning" and s == "circle")])
    color = rng.choice([c for c in SPRITE_COLORS if c != background])
    size = rng.choice(list(RADII))
    radius = RADII[size]
    x, y = rng.uniform(0, SIZE), rng.uniform(0, SIZE)
    if motion in ("bouncing", *PASSING):
        x, y = rng.uniform(radius, SIZE - radius), rng.uniform(radius, SIZE - radius)
    angle = rng.uniform(0, SYMMETRY_DEGREES[shape]) if motion == "spinning" else 0.0
    return Sprite(
        shape=shape,
        color=color,
        size=size,
        motion=motion,
        speed=rng.choice(list(SPEEDS)),
        x=x,
        y=y,
        angle=angle,
        phase=rng.uniform(0, 6.283185307),
        heading=(rng.choice((-1, 1)), rng.choice((-1, 1))),
        gap=rng.randint(12, 40),
        tint=_tint(rng, 0.03),
    )


def _tint(rng: random.Random, amount: float) -> tuple[float, float, float]:
    return rng.uniform(-amount, amount), rng.uniform(-amount, amount), rng.uniform(-amount, amount)
