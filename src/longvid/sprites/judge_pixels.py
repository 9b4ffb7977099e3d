"""First stage of the judge: from pixels to background, sprite colours, soft coverage and centres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from longvid.sprites.draw import background_shade
from longvid.sprites.scene import SIZE, SPRITE_COLORS, STYLES

CONTRAST = 0.14
"""Distance from the background, in RGB, from which a pixel counts as sprite; the world's faintest pair is at 0.2."""
SUBSAMPLE = 3
"""The background is fitted on every third pixel in each direction: coprime to checkers and stripes."""
POOLED_FRAMES = 8
REACH = 22.0
"""Pixels from the centre within which a sprite must lie."""


@dataclass(frozen=True)
class Background:
    """`style` (B,) index into `STYLES`; `base` (B, 3) colour at shade 1; `picture` (B, 3, F, H, W) fitted per frame."""

    style: Tensor
    base: Tensor
    picture: Tensor


@dataclass(frozen=True)
class Blobs:
    """K sprites as seen in the pixels.

    `votes` (B, K, F, 8) interior pixels per colour; `alpha` (B, K, F, H, W) soft coverage; `x`, `y` (B, K, F) centres
    on the torus; `area` (B, K, F) covered pixels; `compact` (B, F) share of all sprite-like pixels inside the sprites.
    """

    votes: Tensor
    alpha: Tensor
    x: Tensor
    y: Tensor
    area: Tensor
    compact: Tensor


def fit_background(video: Tensor) -> Background:
    """Fit every style with a free colour by the median and keep the one with the smallest clipped error.

    A background is `base * shade(style)`; the median of `pixel / shade` finds `base` while sprites cover less than
    half of the picture. The style is chosen on up to 8 frames together, the colour again in every frame, so that a
    background that drifts is followed.
    """
    shades = torch.stack([background_shade(style) for style in STYLES]).to(video)
    few = video[..., 1::SUBSAMPLE, 1::SUBSAMPLE].flatten(3)
    few_shades = shades[:, 1::SUBSAMPLE, 1::SUBSAMPLE].flatten(1)
    num_frames = video.shape[2]
    frames = torch.linspace(0, num_frames - 1, min(POOLED_FRAMES, num_frames), device=video.device).round().long()
    pooled = few[:, :, frames][:, None]  # b 1 c f n
    shade = few_shades[None, :, None, None]
    bases = (pooled / shade).flatten(3).median(dim=-1).values  # b s c
    error = (pooled - (bases[..., None, None] * shade).clamp(0, 1)).abs().clamp(max=0.15).mean((2, 3, 4))
    style = error.argmin(dim=1)
    rows = torch.arange(video.shape[0], device=video.device)
    frame_base = (few / few_shades[style][:, None, None]).median(dim=-1).values  # b c f
    picture = (frame_base[..., None, None] * shades[style][:, None, None]).clamp(0, 1)
    return Background(style, bases[rows, style], picture)


def find_blobs(video: Tensor, background: Background, num_sprites: int) -> Blobs:
    """Separate `num_sprites` sprites from the background by colour and locate each in every frame."""
    offset = video - background.picture
    contrast = offset.square().sum(1).sqrt()
    mask = contrast > CONTRAST
    interior = -F.max_pool2d(-mask.float(), 3, stride=1, padding=1) > 0.5
    if num_sprites == 1:
        x, y = _coarse_centre((contrast * mask)[:, None])
        x, y = _fine_centre((contrast * mask)[:, None], x, y)
        interior = interior & (_near(x, y, REACH)[:, 0])
    counts, sums = _count_colors(video, interior)
    votes, color = _choose_colors(counts, sums, num_sprites)
    alpha = _unmix(offset, color, background.picture) * mask[:, None]
    alpha = alpha * (alpha > 0.25)
    x, y = _coarse_centre(alpha)
    x, y = _fine_centre(alpha, x, y)
    alpha = alpha * _near(x, y, REACH)
    sprites = (alpha > 0).any(1)
    compact = (sprites & mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp(min=1)
    return Blobs(votes, alpha, x, y, alpha.sum((-2, -1)), compact)


def _count_colors(video: Tensor, interior: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels per nearest sprite colour, (B, F, 8), and the sums of their RGB, (B, F, 8, 3)."""
    palette = torch.tensor(list(SPRITE_COLORS.values())).to(video)
    pixels = rearrange(video, "b c f h w -> b f h w c")[interior]
    label = (palette.square().sum(1) - 2 * pixels @ palette.T).argmin(1)
    b, f = interior.shape[:2]
    frame = torch.arange(b * f, device=video.device).view(b, f, 1, 1).expand_as(interior)[interior]
    slot = frame * len(palette) + label
    counts = torch.bincount(slot, minlength=b * f * len(palette)).to(video)
    sums = torch.zeros(len(counts), 3, device=video.device).index_add_(0, slot, pixels)
    return counts.view(b, f, -1), sums.view(b, f, -1, 3)


def _choose_colors(counts: Tensor, sums: Tensor, num_sprites: int) -> tuple[Tensor, Tensor]:
    """Votes (B, K, F, 8) and measured RGB (B, K, F, 3) of each sprite.

    One sprite may change its colour from frame to frame; two sprites are told apart by the two most frequent colours.
    """
    palette = torch.tensor(list(SPRITE_COLORS.values())).to(sums)
    if num_sprites == 1:
        votes = counts[:, None]
    else:
        share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
        chosen = share.sum(1).topk(num_sprites, dim=1).indices.sort(dim=1).values
        own = F.one_hot(chosen, len(palette)).to(counts)  # b k 8
        votes = counts[:, None] * own[:, :, None]
    best = votes.argmax(-1)
    pooled = votes.sum(2)
    missing = votes.sum(-1) < 6
    best = torch.where(missing, pooled.argmax(-1)[..., None], best)
    if num_sprites > 1:
        best = own.argmax(-1)[..., None].expand_as(best)
    index = best[..., None, None].expand(*best.shape, 1, 3)
    spread = sums[:, None].expand(-1, num_sprites, -1, -1, -1)
    count = votes.gather(-1, best[..., None])
    mean = spread.gather(3, index)[..., 0, :] / count.clamp(min=1)
    return votes, torch.where(count < 6, palette[best], mean)


def _unmix(offset: Tensor, color: Tensor, picture: Tensor) -> Tensor:
    """Soft coverage (B, K, F, H, W): `pixel - background` as a non-negative mix of `color - background`."""
    directions = [rearrange(color[:, k], "b f c -> b c f 1 1") - picture for k in range(color.shape[1])]
    norms = [d.square().sum(1).clamp(min=1e-3) for d in directions]
    dots = [(d * offset).sum(1) for d in directions]
    alone = [dot / norm for dot, norm in zip(dots, norms, strict=True)]
    if len(directions) == 1:
        return alone[0][:, None].clamp(0, 1)
    cross = (directions[0] * directions[1]).sum(1)
    determinant = (norms[0] * norms[1] - cross.square()).clamp(min=1e-4)
    both = [(norms[1 - k] * dots[k] - cross * dots[1 - k]) / determinant for k in (0, 1)]
    errors = [norms[k] * alone[k].clamp(min=0).square() for k in (0, 1)]  # what one sprite alone explains
    inside = (both[0] >= 0) & (both[1] >= 0)
    single = [alone[k].clamp(min=0) * (errors[k] >= errors[1 - k]) for k in (0, 1)]
    return torch.stack([torch.where(inside, both[k], single[k]) for k in (0, 1)], dim=1).clamp(0, 1)


def _coarse_centre(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Centre of the 20 x 20 window (on the torus) that holds most of `mass` (..., H, W)."""
    cells = reduce(mass, "... (h i) (w j) -> ... h w", "sum", i=4, j=4)
    rows = cells + sum(cells.roll(s, -1) for s in (-2, -1, 1, 2))
    window = rows + sum(rows.roll(s, -2) for s in (-2, -1, 1, 2))
    best = window.flatten(-2).argmax(-1)
    side = SIZE // 4
    return (best % side) * 4.0 + 2, torch.div(best, side, rounding_mode="floor") * 4.0 + 2


def _fine_centre(mass: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of `mass` around (x, y), with offsets wrapped on the torus; three passes."""
    for _ in range(3):
        dx, dy = _offsets(x, y)
        columns, rows = dx.abs() < REACH, dy.abs() < REACH
        near = mass * rows[..., :, None] * columns[..., None, :]
        total = near.sum((-2, -1)).clamp(min=1e-6)
        x = (x + (near.sum(-2) * dx).sum(-1) / total) % SIZE
        y = (y + (near.sum(-1) * dy).sum(-1) / total) % SIZE
    return x, y


def _offsets(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    pixels = torch.arange(SIZE, device=x.device) + 0.5
    return wrap(pixels - x[..., None]), wrap(pixels - y[..., None])


def _near(x: Tensor, y: Tensor, reach: float) -> Tensor:
    dx, dy = _offsets(x, y)
    return dx.square()[..., None, :] + dy.square()[..., :, None] < reach * reach


def wrap(offset: Tensor, period: float = SIZE) -> Tensor:
    """Shortest way round a circle of length `period`, in [-period / 2, period / 2)."""
    return torch.remainder(offset + period / 2, period) - period / 2
