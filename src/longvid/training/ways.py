"""Where the straight motions of drawn clips go: anywhere, as drawn, or one way that their captions tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from longvid.sprites import Scene
from longvid.sprites.captions import Omissions
from longvid.sprites.scene import DIRECTIONS, SIZE, Sprite

SPEED_SAID = Omissions(speed=0)
"""Captions of typical motions always say the speed, for on it depends where the sprite is."""


def crossing(scene: Scene, num_frames: int) -> Scene:
    """The scene with every straight motion shifted along its way, so that it passes the middle of it half-way through.

    A caption says the direction and not the start. If every start is as likely as any other, all that a direction says
    about the place in a frame is nothing, and what hears the caption alone (HARIVO's frame tokens, any video model at the
    strongest noise) cannot learn it; with a common half-way point it can. Where the sprite is across its way stays as it was.
    """

    def shifted(sprite: Sprite) -> Sprite:
        if sprite.motion not in DIRECTIONS:
            return sprite
        way = sprite.pixels_per_frame * (num_frames - 1) / 2
        dx, dy = DIRECTIONS[sprite.motion]
        return replace(sprite, x=(SIZE / 2 - dx * way) % SIZE if dx else sprite.x,
                       y=(SIZE / 2 - dy * way) % SIZE if dy else sprite.y)  # fmt: skip

    return replace(scene, sprites=tuple(shifted(sprite) for sprite in scene.sprites))


def typical(scene: Scene, num_frames: int) -> Scene:
    """The scene with every straight motion through the middle of the picture, half-way through the clip.

    Captions never say the row of a motion to the right, and what learns all that a caption may mean ends up in between.
    What it learns from this is one script for every motion and speed.
    """

    def through_the_middle(sprite: Sprite) -> Sprite:
        return replace(sprite, x=SIZE / 2, y=SIZE / 2) if sprite.motion in DIRECTIONS else sprite

    return crossing(replace(scene, sprites=tuple(map(through_the_middle, scene.sprites))), num_frames)


WAYS: dict[str, Callable[[Scene, int], Scene]] = {
    "drawn": lambda scene, num_frames: scene,
    "crossing": crossing,
    "typical": typical,
}
"""Where straight motions of clips of so many frames go."""


def num_as_drawn(share: float, num_scenes: int) -> int:
    """How many scenes, the first ones, a share of them is."""
    return round(share * num_scenes)


def on_their_ways(scenes: list[Scene], ways: str, num_frames: int, as_drawn: float) -> list[Scene]:
    """The scenes of clips of `num_frames` frames, all but the first share `as_drawn` of them on one of the `WAYS`."""
    first = num_as_drawn(as_drawn, len(scenes))
    return scenes[:first] + [WAYS[ways](scene, num_frames) for scene in scenes[first:]]


def check_ways(ways: str) -> None:
    """Refuse what is none of `WAYS`."""
    if ways not in WAYS:
        raise ValueError(f"ways must be one of {', '.join(WAYS)}; got {ways!r}")
