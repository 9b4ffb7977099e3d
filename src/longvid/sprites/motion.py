"""Where every sprite is at every frame, in closed form, so that frame 10,000 costs what frame 0 costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longvid.sprites.scene import DIRECTIONS, PASSING, SIZE, Sprite

ORBIT_RADIUS = 14.0
BREATH = (12.0, 4.0)
"""Mean and amplitude, in pixels, of the radius of a sprite that grows and shrinks."""
BREATH_PERIODS = {"slow": 24.0, "normal": 16.0, "fast": 10.0}
SPIN_DEGREES = {"slow": 7.0, "normal": 13.0, "fast": 20.0}
"""Degrees per frame; below half of every shape's symmetry, so that the sense of rotation can be seen."""


@dataclass(frozen=True)
class SpriteTrack:
    """State of one sprite over time, each field of shape (F,).

    `x`, `y` are pixels on the torus (`wraps`) or on the plane; `radius` pixels; `angle` degrees, clockwise on screen.
    """

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    wraps: bool


def track(sprite: Sprite, num_frames: int, start: int = 0) -> SpriteTrack:
    r"""Positions, radii and angles of `sprite` for frames `start` to `start + num_frames - 1`.

    Straight: :math:`p_t = p_0 + v t` on the torus. Bouncing: a triangle wave between the walls. Circling: clockwise on
    radius 14. Breathing: :math:`r_t = 12 + 4 \sin(2 \pi t / T + \phi)`. Spinning: :math:`a_t = a_0 + \omega t`.
    Passing: straight through a corridor so long that the sprite stays out of sight for `sprite.gap` frames.
    """
    t = torch.arange(start, start + num_frames, dtype=torch.float64)
    x, y = torch.full_like(t, sprite.x), torch.full_like(t, sprite.y)
    radius, angle = torch.full_like(t, sprite.radius), torch.full_like(t, sprite.angle)
    step, wraps = sprite.pixels_per_frame, True
    if sprite.motion in DIRECTIONS:
        dx, dy = DIRECTIONS[sprite.motion]
        x, y = x + dx * step * t, y + dy * step * t
    elif sprite.motion == "bouncing":
        x = _reflect(sprite.x + 0.8 * sprite.heading[0] * step * t, sprite.radius)
        y = _reflect(sprite.y + 0.6 * sprite.heading[1] * step * t, sprite.radius)
    elif sprite.motion == "circling":
        turn = sprite.phase + step / ORBIT_RADIUS * t
        x = x + ORBIT_RADIUS * (turn.cos() - math.cos(sprite.phase))
        y = y + ORBIT_RADIUS * (turn.sin() - math.sin(sprite.phase))
    elif sprite.motion == "breathing":
        mean, amplitude = BREATH
        radius = mean + amplitude * torch.sin(2 * math.pi * t / BREATH_PERIODS[sprite.speed] + sprite.phase)
    elif sprite.motion == "spinning":
        angle = angle + SPIN_DEGREES[sprite.speed] * t
    elif sprite.motion in PASSING:
        sign, wraps = (-1 if sprite.motion.endswith("left") else 1), False
        corridor = SIZE + 2 * sprite.radius + sprite.gap * step
        x = (sprite.x + sprite.radius + sign * step * t) % corridor - sprite.radius
        x = torch.where(x > SIZE + sprite.radius, x - corridor, x) if sign < 0 else x
    if wraps:
        x, y = x % SIZE, y % SIZE
    return SpriteTrack(x.float(), y.float(), radius.float(), angle.float(), wraps)


def _reflect(position: Tensor, radius: float) -> Tensor:
    """Fold a position on the line into [radius, SIZE - radius] as a ball between two walls would move."""
    length = SIZE - 2 * radius
    folded = (position - radius) % (2 * length)
    return radius + torch.where(folded > length, 2 * length - folded, folded)
