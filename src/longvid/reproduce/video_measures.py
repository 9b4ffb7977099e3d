"""What is read in the videos of the built-in world: the measures that experiments share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from longvid.reproduce.experiment import Measure

if TYPE_CHECKING:
    from torch import Tensor

    from longvid.sprites.scene import Scene

TAIL = 8
"""Frames at the end in which colour and background are read."""

DIRECTION = Measure("direction", "direction right", "higher", "%", "the sprite moves over the whole clip as asked")
COLOR = Measure("color", "sprite colour right", "higher", "%", f"in the last {TAIL} frames; an absent sprite is wrong")
PRESENT = Measure("present", "sprite still there", "higher", "%", "in the last frame")
BACKGROUND = Measure(
    "background", "background right", "higher", "%", f"its colour and its style, in the last {TAIL} frames"
)
BACKGROUND_DRIFT = Measure(
    "background_drift", "background drift", "lower", "/255", "mean change of the background pixels, last frame to first"
)
COLOR_DRIFT = Measure(
    "color_drift", "colour drift", "lower", "ΔE", "mean colour of the last 15 % of frames to the first"
)
CONTRAST_DRIFT = Measure("contrast_drift", "contrast drift", "lower", "/255", "of the spread of brightness, likewise")
SHARPNESS_DRIFT = Measure(
    "sharpness_drift",
    "sharpness drift",
    "lower",
    "/255",
    "of the mean step in brightness from pixel to pixel, likewise",
)
FLICKER = Measure("flicker", "flicker", None, "/255", "mean change from frame to frame; moving sprites have some, too")
DRIFT_MEASURES = (
    BACKGROUND_DRIFT, COLOR_DRIFT, CONTRAST_DRIFT, SHARPNESS_DRIFT, DIRECTION, COLOR, PRESENT, BACKGROUND, FLICKER,
)  # fmt: skip


def directed_scenes(prompts: Sequence[int]) -> list[Scene]:
    """Numbered scenes of one sprite that moves in a straight line, from combinations that training never drew."""
    from longvid.sprites.evaluate_scenes import FIRST_SEED
    from longvid.sprites.scene import DIRECTIONS, sample_scene

    motions, first = tuple(DIRECTIONS), 2 * FIRST_SEED
    return [
        sample_scene(first + i, split="held_out", num_sprites=1, motions=(motions[i % len(motions)],)) for i in prompts
    ]


def read_videos(scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
    """The `DRIFT_MEASURES` of videos (B, 3, F, 64, 64) in [0, 1], one dictionary per scene; F is 9 or more."""
    from longvid.sprites.judge import background_drift, read_batch, temporal_flicker

    whole, tails = read_batch(videos), read_batch(videos[:, :, -TAIL:])
    rows = []
    for row, (scene, video) in enumerate(zip(scenes, videos, strict=True)):
        truth, tail = scene.sprites[0], tails[row].sprites[0]
        there = tail.present.float().mean().item() >= 0.5
        ground = tails[row].background_color == scene.background_color
        drift = background_drift(video, video.shape[1] - 1)
        rows.append({
            DIRECTION.name: float(whole[row].sprites[0].motion == truth.motion),
            COLOR.name: float(there and tail.color == truth.color),
            PRESENT.name: float(tail.present[-1]),
            BACKGROUND.name: float(ground and tails[row].background_style == scene.background_style),
            BACKGROUND_DRIFT.name: drift if drift == drift else None,  # NaN: no pixel is background in both
            FLICKER.name: temporal_flicker(video),
            **_drifts(video),
        })  # fmt: skip
    return rows


def _drifts(video: Tensor) -> dict[str, float | None]:
    from longvid.metrics.drift import ColorDrift, ContrastDrift, SharpnessDrift

    metrics: dict[str, Any] = {
        COLOR_DRIFT.name: ColorDrift(),
        CONTRAST_DRIFT.name: ContrastDrift(),
        SHARPNESS_DRIFT.name: SharpnessDrift(),
    }
    for metric in metrics.values():
        metric.update(video.transpose(0, 1))
    return {name: metric.compute().value for name, metric in metrics.items()}
