"""Whether a long video still shows what it began with: the scenes that are asked for, and what is read in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longvid.reproduce.experiment import Measure

if TYPE_CHECKING:
    from torch import Tensor

    from longvid.sprites.judge import Reading, SpriteReading
    from longvid.sprites.scene import Scene

HEAD = 16
"""Frames at the beginning whose sprite is the one to be kept: the first chunk."""
ABSENCE = 6
"""Frames without a sprite after which it counts as having been out of sight."""

WHOLE = 0.85
"""Share of its largest radius from which a sprite counts as seen whole: at the border of the picture it is cut."""

IDENTITY = Measure(
    "identity",
    "same sprite at the end",
    "higher",
    "%",
    f"of the frames of the last third that show a whole sprite, those with the colour and shape of the first {HEAD} frames",
)
UNTOLD = Measure(
    "untold", "the same, colours not told", "higher", "%", "only the videos whose caption names no colour: half of them"
)
SPRITE_DRIFT = Measure(
    "sprite_drift",
    "drift of the sprite's colour",
    "lower",
    "/255",
    f"mean colour of its pixels in the last third to that in the first {HEAD} frames",
)
RETURNS = Measure(
    "returns", "comes back", "higher", "%", "only sprites that should pass out of sight and be back before the end"
)
SCENE_DRIFT = Measure(
    "scene_drift",
    "drift of the scene",
    "lower",
    "/255",
    "mean change of the background pixels from the first frame that shows a sprite to the last one that does",
)
MEMORY_MEASURES = (IDENTITY, UNTOLD, SPRITE_DRIFT, SCENE_DRIFT, RETURNS)


def memory_scenes(prompts: Sequence[int]) -> list[Scene]:
    """Numbered scenes of one sprite that moves in a straight line and, in every other one, leaves and comes back."""
    from longvid.sprites.evaluate_scenes import FIRST_SEED
    from longvid.sprites.scene import DIRECTIONS, PASSING, sample_scene

    motions, first = tuple(DIRECTIONS), 4 * FIRST_SEED
    kinds = [(PASSING if i % 2 else motions)[i // 4 % (2 if i % 2 else 4)] for i in prompts]
    return [
        sample_scene(first + i, split="held_out", num_sprites=1, motions=(motion,))
        for i, motion in zip(prompts, kinds, strict=True)
    ]


def tells_colors(prompt: int) -> bool:
    """Whether the caption of a numbered scene names the colours; else only the memory can keep them."""
    return prompt % 4 < 2


def memory_caption(prompt: int, scene: Scene) -> str:
    """The caption of a numbered scene: complete, or without the colours of the sprite and of the background."""
    from longvid.sprites.captions import Omissions, caption_clip

    if tells_colors(prompt):
        return caption_clip(scene)
    return caption_clip(scene, 0, Omissions(0, 1, 0, 0, 0, 0, 1, 0))


def read_memory(scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
    """The `MEMORY_MEASURES` of videos (B, 3, F, 64, 64) in [0, 1], all but `UNTOLD`; F is 9 or more."""
    from longvid.sprites.draw import draw
    from longvid.sprites.judge import read_batch

    rows, drawn = [], read_batch(draw(scenes, videos.shape[2]))
    for video, reading, truth in zip(videos, read_batch(videos), drawn, strict=True):
        sprite = reading.sprites[0]
        rows.append({
            IDENTITY.name: _kept(sprite),
            SPRITE_DRIFT.name: _color_drift(video, reading),
            SCENE_DRIFT.name: _scene_drift(video, sprite.present),
            RETURNS.name: float(comes_back(sprite.present)) if comes_back(truth.sprites[0].present) else None,
        })  # fmt: skip
    return rows


def comes_back(present: Tensor) -> bool:
    """Whether a sprite is seen again behind `ABSENCE` frames or more without it; present (F,) bool."""
    (seen,) = present.nonzero(as_tuple=True)
    return bool((seen.diff() > ABSENCE).any())


def _parts(num_frames: int) -> tuple[slice, slice]:
    """The beginning, and the last third or what is left of it behind the beginning."""
    head = min(HEAD, num_frames // 2)
    return slice(0, head), slice(max(head, num_frames - num_frames // 3), num_frames)


def _kept(sprite: SpriteReading) -> float | None:
    first, seen = (_identities(sprite, part) for part in _parts(len(sprite.identities)))
    if not first or not seen:
        return None
    own = Counter(first).most_common(1)[0][0]
    return sum(one == own for one in seen) / len(seen)


def _identities(sprite: SpriteReading, part: slice) -> list[tuple[str, str]]:
    """Shape and colour in the frames that show the whole sprite, as far as its size tells."""
    named = zip(sprite.identities[part], sprite.radius[part].tolist(), strict=True)
    seen = [(one, radius) for one, radius in named if one]
    largest = max((radius for _, radius in seen), default=0.0)
    return [one for one, radius in seen if radius >= WHOLE * largest]


def _color_drift(video: Tensor, reading: Reading) -> float | None:
    present, means = reading.sprites[0].present.to(reading.mask.device), []
    for part in _parts(video.shape[1]):
        mask = reading.mask[part] & present[part, None, None]
        if not mask.any():
            return None
        means.append(video[:, part][:, mask.to(video.device)].mean(1))
    return (means[1] - means[0]).abs().mean().item() * 255


def _scene_drift(video: Tensor, present: Tensor) -> float | None:
    from longvid.sprites.judge import background_drift

    (seen,) = present.nonzero(as_tuple=True)
    if len(seen) < 2:
        return None
    drift = background_drift(video, int(seen[-1]), int(seen[0]))
    return drift if drift == drift else None  # NaN: no pixel is background in both
