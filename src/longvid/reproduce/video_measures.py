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
LEAST_STEP = 0.25
"""Steps from frame to frame, on the 0-255 scale, below which a picture stands still."""

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

PULSING = Measure(
    "pulsing",
    "pulsing",
    "lower",
    "/255",
    "brightness of the cells of an 8 x 8 grid that goes to and fro from frame to frame; even motion does not count",
)
JUMP = Measure(
    "jump", "largest step", "lower", "×", "largest change from frame to frame, as a multiple of the median one"
)
VANISHING = Measure(
    "vanishing", "vanishes or emerges", "lower", "", "how often the sprite is there in one frame and not in the next"
)
TRAVEL = Measure(
    "travel",
    "travel",
    None,
    "px",
    "way per frame from where the sprite is first seen to where it is last seen; slow sprites make 1.5, fast ones 4",
)
STEADINESS_MEASURES = (PULSING, JUMP, VANISHING, TRAVEL)

SEAM = Measure(
    "seam",
    "step over a seam",
    "lower",
    "×",
    "where this variant joins windows (with random cuts, wherever it may), as a multiple of the mean step elsewhere",
)
WORST_JOINT = Measure(
    "worst_joint",
    "largest step in an overlap",
    "lower",
    "×",
    "the same frames for every variant, as a multiple of the median step elsewhere; drawn videos are above 1, too",
)


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


def read_steadiness(videos: Tensor) -> list[dict[str, float | None]]:
    """The `STEADINESS_MEASURES` of videos (B, 3, F, 64, 64) in [0, 1]; F is 3 or more."""
    from longvid.metrics.flicker import Flicker
    from longvid.sprites.judge import read_batch

    rows = []
    for video, reading in zip(videos, read_batch(videos), strict=True):
        sprite, flicker = reading.sprites[0], Flicker()
        flicker.update(video.transpose(0, 1))
        steps = steps_of(video)
        rows.append({
            PULSING.name: flicker.compute().value,
            JUMP.name: (steps.max() / steps.median().clamp(min=LEAST_STEP)).item(),
            VANISHING.name: float((sprite.present[1:] != sprite.present[:-1]).sum()),
            TRAVEL.name: _travel(sprite.x, sprite.y, sprite.present),
        })  # fmt: skip
    return rows


def steps_of(video: Tensor) -> Tensor:
    """How far every frame is from the one before, (F - 1,), on the 0-255 scale; video (3, F, H, W) in [0, 1]."""
    return video.diff(dim=1).abs().mean((0, 2, 3)) * 255


def _travel(x: Tensor, y: Tensor, present: Tensor) -> float | None:
    """Pixels per frame between the first and the last place of a sprite, in a world that wraps around."""
    from longvid.sprites.judge_pixels import wrap

    (seen,) = present.nonzero(as_tuple=True)
    if len(seen) < 2:
        return None
    dx, dy = (wrap(place[seen].double().diff()).sum() for place in (x, y))
    return float(dx.hypot(dy) / (seen[-1] - seen[0]))
