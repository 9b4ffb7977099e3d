"""Read videos of the built-in world back from their pixels: no network, and nothing shared with training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from longvid.sprites.captions import place_words
from longvid.sprites.judge_motion import classify_motion
from longvid.sprites.judge_pixels import Blobs, find_blobs, fit_background, wrap
from longvid.sprites.judge_shapes import AREAS, match_shapes
from longvid.sprites.scene import BACKGROUND_COLORS, RADII, SHAPES, SIZE, SPRITE_COLORS, STYLES, SYMMETRY_DEGREES

MIN_AREA, MAX_AREA = 45.0, 1100.0
"""Covered pixels of what can be a sprite; drawn ones cover 112 (star, radius 8) to 804 (circle, radius 16)."""
COVERED = 0.02
"""Weight of a frame in which two sprites touch."""


@dataclass(frozen=True)
class SpriteReading:
    """What one sprite was seen to be, over the whole clip and frame by frame.

    `colors`, `shapes`, `places` hold one word per frame (None where the sprite is absent); `x`, `y`, `radius`, `angle`
    (F,) are pixels and degrees; `present` (F,) bool.
    """

    color: str
    shape: str
    size: str
    motion: str
    speed: str | None
    colors: tuple[str | None, ...]
    shapes: tuple[str | None, ...]
    places: tuple[str | None, ...]
    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    present: Tensor

    @property
    def identities(self) -> tuple[tuple[str, str] | None, ...]:
        """(shape, colour) per frame, None where the sprite is absent."""
        pairs = zip(self.shapes, self.colors, strict=True)
        return tuple(None if shape is None or color is None else (shape, color) for shape, color in pairs)


@dataclass(frozen=True)
class Reading:
    """What the judge saw in one video.

    `background_base` (3,) is the background's colour at shade 1; `mask` (F, H, W) is True where a sprite is.
    """

    background_color: str
    background_style: str
    background_base: Tensor
    sprites: tuple[SpriteReading, ...]
    mask: Tensor


def read(video: Tensor, num_sprites: int = 1) -> Reading:
    """Read one video; see `read_batch`.

    Shapes:
        video (3, F, 64, 64) in [0, 1], F >= 1; motion needs at least 5 frames and is meant for 16 or more.
    """
    if video.ndim != 4:
        raise ValueError(f"expected one video (3, F, {SIZE}, {SIZE}); got shape {tuple(video.shape)}")
    return read_batch(video[None], num_sprites)[0]


@torch.no_grad()
def read_batch(videos: Tensor, num_sprites: int = 1) -> list[Reading]:
    """Read videos from their pixels alone.

    Args:
        videos: What is judged.
        num_sprites: How many sprites to look for: 1, or 2 of different colours. Two are listed in the order of
            `SPRITE_COLORS`.
    Shapes:
        videos (B, 3, F, 64, 64) in [0, 1].

    Raises:
        ValueError: for another shape or number of sprites, or values that are not finite.
    """
    videos = _checked(videos)
    if num_sprites not in (1, 2):
        raise ValueError(f"num_sprites must be 1 or 2; got {num_sprites!r}")
    background = fit_background(videos)
    blobs = find_blobs(videos, background, num_sprites)
    b, k, f = blobs.area.shape
    flat = [rearrange(t, "b k f ... -> (b k f) ...") for t in (blobs.alpha, blobs.x, blobs.y, blobs.area)]
    scores, angles = match_shapes(*flat)
    scores = rearrange(scores, "(b k f) s -> b k f s", b=b, k=k)
    angles = {shape: angle.view(b, k, f) for shape, angle in angles.items()}
    present = (blobs.area > MIN_AREA) & (blobs.area < MAX_AREA) & (blobs.votes.sum(-1) >= 12)
    present &= blobs.compact[:, None] > 0.6
    weight = present.float() * _uncovered(blobs)
    palette = torch.tensor(list(BACKGROUND_COLORS.values())).to(background.base)
    nearest = torch.cdist(background.base, palette).argmin(1).tolist()
    mask = (blobs.alpha > 0).any(1)
    return [
        Reading(
            background_color=list(BACKGROUND_COLORS)[nearest[row]],
            background_style=STYLES[int(background.style[row])],
            background_base=background.base[row],
            sprites=tuple(_read_sprite(blobs, (row, i), scores, angles, present, weight) for i in range(k)),
            mask=mask[row],
        )
        for row in range(b)
    ]


def background_drift(video: Tensor, frame: int, reference: int = 0, num_sprites: int = 1) -> float:
    """Mean absolute difference, on the 0-255 scale, of the pixels that show background in both frames.

    Sprites are left out with a rim of 3 pixels. Whatever else differs from a background counts as drift.

    Shapes:
        video (3, F, 64, 64) in [0, 1].
    """
    pair = video[:, [reference, frame]]
    mask = torch.stack([_sprite_mask(pair[:, i : i + 1], num_sprites) for i in (0, 1)]).any(0)
    keep = ~mask
    if not keep.any():
        return float("nan")
    return (pair[:, 0] - pair[:, 1]).abs()[:, keep].mean().item() * 255


def temporal_flicker(video: Tensor) -> float:
    """Mean absolute difference of neighbouring frames on the 0-255 scale; video (3, F, H, W) in [0, 1]."""
    if video.shape[1] < 2:
        raise ValueError(f"expected at least two frames; got {video.shape[1]}")
    return video.diff(dim=1).abs().mean().item() * 255


def _checked(videos: Tensor) -> Tensor:
    if videos.ndim != 5 or videos.shape[1] != 3 or videos.shape[-2:] != (SIZE, SIZE) or not videos.shape[2]:
        raise ValueError(f"expected videos (B, 3, F, {SIZE}, {SIZE}); got shape {tuple(videos.shape)}")
    videos = videos.float()
    if not torch.isfinite(videos).all():
        raise ValueError("expected finite pixel values in [0, 1]; got NaN or infinity")
    return videos.clamp(0, 1)


def _sprite_mask(frame: Tensor, num_sprites: int) -> Tensor:
    """Where sprites are in one frame (3, 1, H, W), grown by 3 pixels, (H, W)."""
    video = _checked(frame[None])
    blobs = find_blobs(video, fit_background(video), num_sprites)
    seen = (blobs.alpha > 0) & ((blobs.area > MIN_AREA) & (blobs.area < MAX_AREA))[..., None, None]
    grown = torch.nn.functional.max_pool2d(seen.any(1).float(), 7, stride=1, padding=3)
    return grown[0, 0] > 0


def _uncovered(blobs: Blobs) -> Tensor:
    """1 where a sprite stands alone, nearly 0 where two touch, (B, K, F)."""
    if blobs.x.shape[1] == 1:
        return torch.ones_like(blobs.x)
    dx, dy = wrap(blobs.x[:, 0] - blobs.x[:, 1]), wrap(blobs.y[:, 0] - blobs.y[:, 1])
    reach = 0.62 * blobs.area.sqrt().sum(1) + 2  # the square root of the area is 1.3 to 1.8 radii
    return torch.where(torch.hypot(dx, dy) < reach, COVERED, 1.0)[:, None].expand_as(blobs.x)


def _read_sprite(
    blobs: Blobs, where: tuple[int, int], scores: Tensor, angles: dict[str, Tensor], present: Tensor, weight: Tensor
) -> SpriteReading:
    """Sum up one sprite: words by weighted vote over frames, then the motion along its track."""
    present, weight = present[where].cpu(), weight[where].cpu()
    votes, area, scores = blobs.votes[where].cpu(), blobs.area[where].cpu(), scores[where].cpu()
    trusted = weight if weight.sum() > 0 else torch.ones_like(weight)
    share = votes / votes.sum(-1, keepdim=True).clamp(min=1)
    shape = SHAPES[int((scores * trusted[:, None]).sum(0).argmax())]
    radius = (area / AREAS[shape]).sqrt()
    x, y, angle = blobs.x[where].cpu(), blobs.y[where].cpu(), angles[shape][where].cpu()
    typical = (radius * trusted).sum() / trusted.sum()
    motion, speed = classify_motion(x, y, radius, angle, weight, SYMMETRY_DEGREES[shape])
    seen = present.tolist()
    names, frame_colors, frame_shapes = list(SPRITE_COLORS), votes.argmax(-1).tolist(), scores.argmax(-1).tolist()
    return SpriteReading(
        color=names[int((share * trusted[:, None]).sum(0).argmax())],
        shape=shape,
        size=min(RADII, key=lambda size: abs(RADII[size] - typical.item())),
        motion=motion,
        speed=speed,
        colors=tuple(names[c] if p else None for c, p in zip(frame_colors, seen, strict=True)),
        shapes=tuple(SHAPES[s] if p else None for s, p in zip(frame_shapes, seen, strict=True)),
        places=tuple(place_words(*at) if p else None for *at, p in zip(x.tolist(), y.tolist(), seen, strict=True)),
        x=x,
        y=y,
        radius=radius,
        angle=angle,
        present=present,
    )
