"""Flicker by motion, out of a report: `python tools/flicker_by_motion.py REPORT.json` of `longvid evaluate --sprites`.

The report compares the flicker of all videos with that of all drawn ones, and sprites that rest where they should move lower it.
This compares the videos of each motion with the drawn ones of the same scenes.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from longvid.sprites import draw, temporal_flicker
from longvid.sprites.evaluate_scenes import evaluation_scenes
from longvid.sprites.scene import DIRECTIONS


def main(path: str) -> None:
    """Print number, mean flicker made and drawn, and their ratio, motion by motion, for the shorter length of the report."""
    report = json.loads(Path(path).read_text())
    settings, prompts = report["settings"], report["prompts"]
    scenes = evaluation_scenes(settings["prompts"], settings["seed"], settings["split"])
    flicker = defaultdict(list)
    for scene, made in zip(scenes, prompts, strict=False):  # videos of the longer length come behind
        motion = scene.sprites[0].motion
        drawn = temporal_flicker(draw(scene, settings["frames"])[0])
        flicker["straight" if motion in DIRECTIONS else motion].append((made["flicker"], drawn))
    for motion, pairs in flicker.items():
        made, drawn = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        print(motion, len(pairs), f"{made:.2f}", f"{drawn:.2f}", f"{made / drawn:.2f}" if drawn else "", sep="\t")


if __name__ == "__main__":
    main(sys.argv[1])
