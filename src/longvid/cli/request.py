"""What `longvid generate` can be asked for: the schema of YAML files, overrides, options and a record's `settings`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "longvid/art-v-tiny"
CALL_KEYS = (
    "num_frames", "frames_per_prompt", "height", "width", "num_inference_steps", "guidance_scale",
    "reference_guidance_scale", "anchor_guidance_scale", "noise_level", "negative_prompt",
)  # fmt: skip
"""Settings that are arguments of the pipeline's call, by the same names; those left None are not passed."""


@dataclass
class SchedulerSettings:
    """The sampler: a diffusers scheduler class (or one of longvid's) and changes to its config."""

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OutputSettings:
    """Where the video goes and how it is encoded; None leaves the choice to the file format."""

    path: str | None = None
    fps: float | None = None
    codec: str | None = None
    crf: float | None = None
    pixel_format: str | None = None
    contact_sheet: str | None = None
    show_masks: str | None = None
    overwrite: bool = True


@dataclass
class GenerateSettings:
    """One run. `options` takes any further argument of the model's pipeline call."""

    prompt: Any = field(default_factory=list)
    negative_prompt: str | None = None
    image: str | None = None
    video: str | None = None
    model: str = DEFAULT_MODEL
    seed: int | None = None
    num_frames: int | None = None
    frames_per_prompt: Any = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: Any = None
    reference_guidance_scale: float | None = None
    anchor_guidance_scale: float | None = None
    noise_level: int | None = None
    device: str | None = None
    dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    output: OutputSettings = field(default_factory=OutputSettings)

    def call_arguments(self) -> dict[str, Any]:
        """The keyword arguments of the pipeline's call that these settings name, without image and video.

        Several prompts tell one video; without `frames_per_prompt` they share `num_frames` evenly, or take 16 each.

        Raises:
            ValueError: if there are more prompts than frames.
        """
        arguments = {key: getattr(self, key) for key in CALL_KEYS if getattr(self, key) is not None}
        count = len(self.prompt)
        if count > 1 and self.frames_per_prompt is None:
            if self.num_frames is not None and self.num_frames < count:
                raise ValueError(f"{count} prompts need at least {count} frames; got num_frames={self.num_frames}")
            short, longer = divmod(self.num_frames or 16 * count, count)
            arguments["frames_per_prompt"] = [short + (index < longer) for index in range(count)]
        several = "frames_per_prompt" in arguments
        return {"prompt": list(self.prompt) if several else self.prompt[0], **arguments, **self.options}


def read_record(path: str | Path) -> dict[str, Any]:
    """The record of an earlier run; its `settings`, seed included, make the run again.

    Raises:
        ValueError: if `path` is not such a record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        settings = dict(record["settings"])
    except FileNotFoundError as error:
        raise ValueError(f"record {str(path)!r} does not exist") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a record that `longvid generate` wrote beside a video") from error
    return {**record, "settings": settings}
