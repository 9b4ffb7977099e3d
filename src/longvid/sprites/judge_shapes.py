"""Second stage of the judge: shape and angle, by correlation with drawn templates of every shape at every angle."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.sprites.draw import coverage
from longvid.sprites.scene import SHAPES, SIZE, SYMMETRY_DEGREES

AREAS: dict[str, float] = {
    "circle": math.pi,
    "square": 1.7**2,
    "triangle": 3 * math.sqrt(3) * 0.58**2,
    "star": 5 * 1.15**2 * 0.45 * math.sin(math.pi / 5),
    "cross": 4 * 0.68 - 0.68**2,
}
"""Area of each shape at radius 1."""
GRID = 29
EXTENT = 1.15
"""Half side of the comparison grid, in units of the square root of the area."""
STEP_DEGREES = {"circle": 0.0, "square": 5.0, "triangle": 5.0, "star": 4.0, "cross": 5.0}
SCALES = (0.94, 1.0, 1.06)
RENDERED = 14.0
"""Square root of the area, in pixels, at which templates are drawn."""


@lru_cache(maxsize=4)
def _templates(device: torch.device) -> dict[str, Tensor]:
    """Unit vectors (scales, angles, GRID * GRID) per shape."""
    line = torch.linspace(-EXTENT, EXTENT, GRID) * RENDERED
    dy, dx = torch.meshgrid(line, line, indexing="ij")
    built = {}
    for shape in SHAPES:
        step, symmetry = STEP_DEGREES[shape], SYMMETRY_DEGREES[shape]
        angles = torch.arange(0, symmetry, step) if step else torch.zeros(1)
        drawn = [
            coverage(shape, dx, dy, torch.tensor(scale * RENDERED / math.sqrt(AREAS[shape])), angles[:, None, None])
            .expand(len(angles), -1, -1)
            .flatten(1)
            for scale in SCALES
        ]
        built[shape] = _unit(torch.stack(drawn)).to(device)
    return built


def _unit(patches: Tensor) -> Tensor:
    patches = patches - patches.mean(-1, keepdim=True)
    return patches / patches.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def match_shapes(alpha: Tensor, x: Tensor, y: Tensor, area: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Correlate coverages with all templates.

    Shapes:
        alpha (N, H, W), x, y, area (N,) -> scores (N, 5) in the order of `SHAPES`; angles {shape: (N,)} in degrees
        modulo the symmetry of the shape.
    """
    patches = _unit(_normalised_patches(alpha, x, y, area).flatten(1))
    scores, angles = [], {}
    for shape, templates in _templates(alpha.device).items():
        match = torch.einsum("n p, s a p -> n s a", patches, templates).amax(1)
        best = match.max(dim=1)
        scores.append(best.values)
        angles[shape] = _peak(match, best.indices) * STEP_DEGREES[shape]
    return torch.stack(scores, 1), angles


def _normalised_patches(alpha: Tensor, x: Tensor, y: Tensor, area: Tensor) -> Tensor:
    """Coverage around the centre on a grid that scales with the size, (N, GRID, GRID); the picture is a torus."""
    unit = area.clamp(min=16).sqrt()
    line = torch.linspace(-EXTENT, EXTENT, GRID, device=alpha.device)
    margin = SIZE // 2
    padded = F.pad(alpha[:, None], (margin,) * 4, mode="circular")
    scale = 2 / padded.shape[-1]
    gx = (x[:, None] + margin + unit[:, None] * line) * scale - 1
    gy = (y[:, None] + margin + unit[:, None] * line) * scale - 1
    grid = torch.stack([gx[:, None].expand(-1, GRID, -1), gy[:, :, None].expand(-1, -1, GRID)], -1)
    return F.grid_sample(padded, grid, align_corners=False)[:, 0]


def _peak(match: Tensor, best: Tensor) -> Tensor:
    """Index of the maximum refined by the parabola through its two neighbours (angles are circular)."""
    count = match.shape[1]
    if count == 1:
        return torch.zeros_like(best, dtype=match.dtype)
    left, middle, right = (match.gather(1, ((best + s) % count)[:, None])[:, 0] for s in (-1, 0, 1))
    shift = 0.5 * (left - right) / (left - 2 * middle + right).clamp(max=-1e-6)
    return best + shift.clamp(-0.5, 0.5)
