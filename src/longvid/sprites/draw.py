"""Draw scenes as anti-aliased video tensors; everything is vectorised over videos and frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from longvid.sprites.motion import track
from longvid.sprites.scene import BACKGROUND_COLORS, SHAPES, SIZE, SPRITE_COLORS, Scene

CELL = 16
"""Side of a checker in pixels; stripes are half as wide."""


def draw(
    scenes: Scene | Sequence[Scene], num_frames: int, *, start: int = 0, device: str | torch.device = "cpu"
) -> Tensor:
    """Draw videos of the built-in world.

    Args:
        scenes: One scene or several.
        num_frames: Frames to draw of each, from frame `start` on (8 frames a second).
        device: Where the drawing is done.
    Shapes:
        B scenes -> (B, 3, F, 64, 64), float32 in [0, 1].

    Raises:
        ValueError: if `num_frames` is below 1.
    """
    scenes = [scenes] if isinstance(scenes, Scene) else list(scenes)
    if num_frames < 1 or not scenes:
        raise ValueError(
            f"expected at least one scene and one frame; got {len(scenes)} scenes, num_frames={num_frames}"
        )
    video = torch.stack([draw_background(scene) for scene in scenes]).to(device)
    video = video[:, :, None].expand(-1, -1, num_frames, -1, -1).clone()
    for layer in range(max(len(scene.sprites) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.sprites) > layer]
        _paint(video, rows, [scenes[row].sprites[layer] for row in rows], num_frames, start)
    return video.clamp_(0, 1)


def draw_background(scene: Scene) -> Tensor:
    """The empty background of a scene, (3, 64, 64) in [0, 1]."""
    base = (torch.tensor(BACKGROUND_COLORS[scene.background_color]) + torch.tensor(scene.tint))[:, None, None]
    return (base * background_shade(scene.background_style)).clamp(0, 1)


def background_shade(style: str) -> Tensor:
    """Brightness factor of a background style, (64, 64)."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    if style == "gradient":
        return 1.15 - 0.55 * (y + 0.5) / SIZE
    if style == "checkered":
        return torch.where((x // CELL + y // CELL) % 2 == 0, 1.0, 0.72)
    if style == "striped":
        return torch.where((x // (CELL // 2)) % 2 == 0, 1.0, 0.72)
    if style == "solid":
        return torch.ones(SIZE, SIZE)
    raise ValueError(f"style must be one of solid, gradient, checkered, striped; got {style!r}")


def coverage(shape: str, dx: Tensor, dy: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """How much of each pixel a shape covers, in [0, 1], from its signed distance in pixels.

    Args:
        shape: One of `SHAPES`.
        dx, dy: Offsets of the pixel from the centre of the shape.
        radius: Radius in pixels, broadcastable to `dx`.
        angle: Clockwise rotation in degrees, broadcastable to `dx`.
    """
    if shape == "circle":
        return (0.5 + radius - torch.sqrt(dx * dx + dy * dy)).clamp_(0, 1)
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    if shape == "square":
        distance = torch.maximum(u.abs(), v.abs()) - 0.85 * radius
    elif shape == "triangle":
        slope = math.sqrt(3) / 2
        distance = torch.maximum(v, slope * u.abs() - 0.5 * v) - 0.58 * radius
    elif shape == "cross":
        u, v = u.abs(), v.abs()
        arm, width = radius, 0.34 * radius
        distance = torch.minimum(torch.maximum(u - arm, v - width), torch.maximum(u - width, v - arm))
    elif shape == "star":
        distance = _star_distance(u, v, 1.15 * radius)
    else:
        raise ValueError(f"shape must be one of {SHAPES}; got {shape!r}")
    return (0.5 - distance).clamp_(0, 1)


def _star_distance(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Signed distance to the edges of a five-pointed star, tip up, folded into one tenth of the turn."""
    sector = 2 * math.pi / 5
    turn = torch.atan2(u, -v)
    folded = (torch.remainder(turn + sector / 2, sector) - sector / 2).abs()
    rho = torch.sqrt(u * u + v * v)
    inner = 0.45
    tip, notch = (1.0, 0.0), (inner * math.cos(sector / 2), inner * math.sin(sector / 2))
    edge = (notch[0] - tip[0], notch[1] - tip[1])
    length = math.hypot(*edge)
    return ((rho * torch.cos(folded) - radius) * edge[1] - rho * torch.sin(folded) * edge[0]) / length


def _paint(video: Tensor, rows: list[int], sprites: list, num_frames: int, start: int) -> None:
    device = video.device
    for shape in SHAPES:
        chosen = [(row, sprite) for row, sprite in zip(rows, sprites, strict=True) if sprite.shape == shape]
        if not chosen:
            continue
        tracks = [track(sprite, num_frames, start) for _, sprite in chosen]
        wraps = torch.tensor([t.wraps for t in tracks], device=device)[:, None, None, None]
        x, y, radius, angle = (
            torch.stack([getattr(t, name) for t in tracks]).to(device)[:, :, None, None]
            for name in ("x", "y", "radius", "angle")
        )
        pixels = torch.arange(SIZE, device=device, dtype=torch.float32) + 0.5
        dx, dy = pixels[None, None, None, :] - x, pixels[None, None, :, None] - y
        half = SIZE / 2
        dx = torch.where(wraps, torch.remainder(dx + half, SIZE) - half, dx)
        dy = torch.where(wraps, torch.remainder(dy + half, SIZE) - half, dy)
        alpha = coverage(shape, dx, dy, radius, angle)[:, None]
        color = torch.tensor([[c + t for c, t in zip(SPRITE_COLORS[s.color], s.tint, strict=True)] for _, s in chosen])
        index = torch.tensor([row for row, _ in chosen], device=device)
        video[index] = video[index].lerp(color.clamp(0, 1).to(device)[:, :, None, None, None], alpha)
