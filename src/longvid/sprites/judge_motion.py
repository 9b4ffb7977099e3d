"""Third stage of the judge: motion class and speed from tracks on the torus."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from longvid.sprites.judge_pixels import wrap
from longvid.sprites.motion import BREATH_PERIODS, SPIN_DEGREES
from longvid.sprites.scene import SPEEDS

MOVING = 0.7
"""Median pixels per frame from which a sprite counts as travelling."""
TURNING = 3.5
"""Degrees per frame from which a sprite counts as spinning."""
BREATHING = 1.2
"""Amplitude of the radius in pixels from which a sprite counts as growing and shrinking."""
LONG = 40
"""Steps after which a bouncing sprite must have met a wall; a shorter window may show only its diagonal."""
ABSENCE = 6
"""Frames out of sight that make a straight motion a passing one."""


def classify_motion(
    x: Tensor, y: Tensor, radius: Tensor, angle: Tensor, weight: Tensor, symmetry: float
) -> tuple[str, str | None]:
    """Motion class and speed word of one sprite.

    Args:
        x, y: Centres in pixels on the torus, (F,).
        radius: Pixels, (F,).
        angle: Degrees modulo `symmetry`, (F,).
        weight: How far each frame can be trusted, (F,): 0 where the sprite is absent, small where it is covered.
        symmetry: Rotation in degrees that maps the shape onto itself; 0 for a circle.

    Returns:
        A motion of the world or `"unclear"` (a track that fits no motion, or fewer than 4 usable steps), and the
        nearest speed word (None for `"still"` and `"unclear"`).
    """
    steps = torch.stack([wrap(x.diff()), wrap(y.diff())], 1).double()
    trust = (weight[1:] * weight[:-1]).double()
    if (trust > 0).sum() < 4:
        return "unclear", None
    pace = _median(steps.norm(dim=1), trust).item()
    if pace < MOVING:
        return _in_place(radius, angle, weight, trust, symmetry)
    motion = _travel(steps, trust, pace)
    absent = int(_longest_run(weight == 0))
    if motion in ("left", "right") and absent >= ABSENCE:
        motion = f"passing {motion}"
    return motion, None if motion == "unclear" else _nearest(SPEEDS, pace)


def _in_place(radius: Tensor, angle: Tensor, weight: Tensor, trust: Tensor, symmetry: float) -> tuple[str, str | None]:
    amplitude, period = _oscillation(radius.double(), weight.double())
    if amplitude > BREATHING:
        return "breathing", _nearest(BREATH_PERIODS, period)
    if symmetry:
        turns = wrap(angle.diff().double(), symmetry)
        rate = abs(_median(turns, trust).item())
        if rate > TURNING:
            return "spinning", _nearest(SPIN_DEGREES, rate)
    return "still", None


def _oscillation(radius: Tensor, weight: Tensor) -> tuple[float, float]:
    """Amplitude and period of the best sine through `radius`, of the periods the world knows."""
    t = torch.arange(len(radius), dtype=torch.float64)
    fits = []
    for period in BREATH_PERIODS.values():
        turn = 2 * math.pi * t / period
        design = torch.stack([torch.ones_like(t), turn.cos(), turn.sin()], 1) * weight.sqrt()[:, None]
        target = (radius * weight.sqrt())[:, None]
        normal = design.T @ design + 1e-3 * torch.eye(3, dtype=torch.float64)
        solution = torch.linalg.solve(normal, design.T @ target)
        error = (design @ solution - target).square().sum().item()
        fits.append((error, solution[1:].norm().item(), period))
    _, amplitude, period = min(fits)
    alone = weight >= 0.5 * weight.max()
    clear = radius[alone if 2 * alone.sum() >= len(alone) else weight > 0]
    spread = (clear.quantile(0.95) - clear.quantile(0.05)).item() / 2
    return min(amplitude, 1.2 * spread), period


def _travel(steps: Tensor, trust: Tensor, pace: float) -> str:
    """Choose between straight, bouncing and circling by how well each explains the steps."""
    limit = 0.6 * pace
    middle = torch.stack([_median(steps[:, 0], trust), _median(steps[:, 1], trust)])
    straight = _mean_error(steps - middle, trust, limit)
    sizes = steps.abs()
    usual = torch.stack([_median(sizes[:, 0], trust), _median(sizes[:, 1], trust)])
    bouncing = _mean_error(sizes - usual, trust, limit)
    circling = _circle_error(steps, trust, limit)
    turned_back = any(_reversals(steps[:, axis], trust, 0.35 * pace) for axis in (0, 1))
    if circling < bouncing and circling < 0.8 * straight:
        return "circling" if circling < 0.4 * pace else "unclear"
    if turned_back and bouncing < straight:
        return "bouncing" if bouncing < 0.4 * pace else "unclear"
    if straight > 0.45 * pace:
        return "unclear"
    dx, dy = middle.tolist()
    slant = math.degrees(math.atan2(min(abs(dx), abs(dy)), max(abs(dx), abs(dy))))
    if slant > 20 and len(steps) < LONG:
        return "bouncing"
    if abs(dx) >= abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def _circle_error(steps: Tensor, trust: Tensor, limit: float) -> float:
    """Smallest error of steps that turn at a constant rate of 0.06 to 0.42 radians a frame, either way round."""
    rates = torch.arange(0.06, 0.42, 0.01, dtype=torch.float64)
    rates = torch.cat([rates, -rates])[:, None]
    wave = torch.polar(torch.ones(1, dtype=torch.float64), rates * torch.arange(len(steps), dtype=torch.float64))
    z = torch.complex(steps[:, 0], steps[:, 1])
    share = trust / trust.sum()
    amplitude = (share * z * wave.conj()).sum(1, keepdim=True)
    error = (z - amplitude * wave).abs().clamp(max=limit)
    return (error * share).sum(1).min().item()


def _mean_error(error: Tensor, trust: Tensor, limit: float) -> float:
    """Clipped mean length of `error` (N, 2): single wild steps, such as the one at a wall, weigh little."""
    return ((error.norm(dim=1).clamp(max=limit) * trust).sum() / trust.sum()).item()


def _reversals(step: Tensor, trust: Tensor, threshold: float) -> int:
    """Sign changes of clear steps, each side lasting at least two frames."""
    signs = [int(s > 0) for s, w in zip(step.tolist(), trust.tolist(), strict=True) if abs(s) > threshold and w > 0.01]
    runs: list[list[int]] = []
    for sign in signs:
        if runs and runs[-1][0] == sign:
            runs[-1][1] += 1
        else:
            runs.append([sign, 1])
    lasting = [sign for sign, length in runs if length >= 2]
    return sum(a != b for a, b in zip(lasting, lasting[1:], strict=False))


def _longest_run(flags: Tensor) -> int:
    longest = current = 0
    for flag in flags.tolist():
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest


def _median(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted median."""
    order = values.argsort()
    reached = weight[order].cumsum(0) >= 0.5 * weight.sum()
    return values[order[int(reached.int().argmax())]]


def _nearest(table: dict[str, float], value: float) -> str:
    return min(table, key=lambda name: abs(math.log(table[name] / max(value, 1e-3))))
