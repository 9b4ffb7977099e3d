"""The videos of a benchmark: one for every prompt and repetition, each finished or not there, with a record beside it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longvid.cli.job import DEFAULT_FPS
from longvid.cli.parser import say
from longvid.cli.record import Record, plain
from longvid.metrics.prompt_sets import PromptSet

MANIFEST = "benchmark.json"
FORMAT = 1
PARTIAL = ".partial-"
_NOT_COMPARED = ("prompt", "output", "device", "image", "video")


@dataclass(frozen=True)
class PlannedVideo:
    """One video of a benchmark.

    Attributes:
        name: Name of its file or folder, without suffix.
        prompt: What it shows.
        seed: Start of its random numbers.
        path: Where it will be.
    """

    name: str
    prompt: str
    seed: int
    path: Path

    @property
    def record(self) -> Path:
        """The file that says how it was made and what was measured; it is written last."""
        return self.path.with_name(f"{self.name}.json")

    def is_finished(self) -> bool:
        """Whether video and record are there."""
        return self.path.exists() and self.record.is_file()


def plan_videos(
    prompts: PromptSet, folder: Path, *, seed: int, videos_per_prompt: int, suffix: str
) -> list[PlannedVideo]:
    """All videos of a benchmark, every prompt once, then every prompt again.

    The seed of video j of prompt i is ``seed + j * number of prompts + i``, so that asking for more videos per prompt
    leaves those that are there as they are.

    Args:
        prompts: The set.
        folder: Where they go.
        seed: Seed of the first.
        videos_per_prompt: How often each prompt is used.
        suffix: Such as ``.mp4``; empty for folders of PNGs.
    """
    planned = []
    for repetition in range(videos_per_prompt):
        for index, prompt in enumerate(prompts.prompts):
            words = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:40].strip("-")
            name = "-".join(filter(None, [f"{index + 1:03d}", words, str(repetition + 1) if repetition else ""]))
            number = seed + repetition * len(prompts.prompts) + index
            planned.append(PlannedVideo(name, prompt, number, folder / f"{name}{suffix}"))
    return planned


def check_manifest(folder: Path, prompts: PromptSet, settings: Any, suffix: str) -> Record:
    """The record of the whole benchmark: of an earlier run in this folder, which must have been the same, or a new one.

    Raises:
        ValueError: if the folder holds a benchmark of other prompts or settings, with the first difference, or other files.
    """
    values = {
        "format": FORMAT,
        "set": plain(asdict(prompts)),
        "suffix": suffix,
        "settings": {key: value for key, value in plain(asdict(settings)).items() if key not in _NOT_COMPARED},
    }
    path = folder / MANIFEST
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"--output: {folder} holds other files; choose an empty or a new folder")
        return Record(path, values)
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        before = dict(_leaves({key: earlier[key] for key in values}))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no record of a benchmark") from error
    now = dict(_leaves(values))
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{folder} holds a benchmark with {key}={before.get(key)!r}, and {now.get(key)!r} is asked for;"
                " choose another folder"
            )
    return Record(path, earlier)


def make_videos(videos: list[PlannedVideo], manifest: Record, settings: Any, *, quiet: bool, debug: bool) -> None:
    """Make what is not there yet; a video gets its name when it is complete.

    Raises:
        ValueError: if the model is not the one that made the videos that are there.
    """
    folder = manifest.path.parent
    missing = [video for video in videos if not video.is_finished()]
    say(f"{len(videos) - len(missing)} of {len(videos)} videos are there", quiet=quiet)
    if not missing:
        return
    pipe = _load(settings, quiet=quiet, debug=debug)
    fingerprint = pipe.fingerprint()
    known = manifest.values.get("fingerprint")
    if known not in (None, fingerprint):
        raise ValueError(f"{settings.model} has changed since the videos in {folder} were made; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    manifest.save(fingerprint=fingerprint)
    for left_over in folder.glob(f"{PARTIAL}*"):
        _remove(left_over)
    for number, video in enumerate(missing):
        say(f"{number + 1}/{len(missing)} {video.name}: {video.prompt}", quiet=quiet)
        _make(pipe, video, settings, quiet=quiet)


def _load(settings: Any, *, quiet: bool, debug: bool) -> Any:
    from longvid.cli.load import load_pipeline, quiet_libraries
    from longvid.cli.schedulers import make_scheduler

    say(f"loading {settings.model} ...", quiet=quiet)
    if not debug:
        quiet_libraries()
    pipe = load_pipeline(settings.model, device=settings.device, dtype=settings.dtype)
    if settings.scheduler.name or settings.scheduler.options:
        pipe.scheduler = make_scheduler(pipe.scheduler, settings.scheduler.name, settings.scheduler.options)
    return pipe


def _make(pipe: Any, video: PlannedVideo, settings: Any, *, quiet: bool) -> None:
    """Make one video under another name, then give it its own, then write its record."""
    import torch

    from longvid.cli.parser import nearest
    from longvid.cli.progress import FrameBar
    from longvid.video.io import VideoWriter

    settings.prompt = [video.prompt]
    call = settings.call_arguments() | {"generator": torch.Generator().manual_seed(video.seed)}
    request_type = type(pipe).stream.request_type
    for name in call:
        if name not in request_type.field_names():
            raise ValueError(
                f"{type(pipe).__name__} takes no argument {name!r}{nearest(name, request_type.field_names())}"
            )
    request = pipe.check_inputs(request_type(**call))
    if request.num_frames == float("inf"):
        raise ValueError("num_frames must be a whole number: a file has a last frame")
    partial = video.path.with_name(f"{PARTIAL}{video.path.name}")
    started, starts = time.perf_counter(), []
    bar = FrameBar(int(request.num_frames), disable=quiet)
    fps = DEFAULT_FPS if settings.output.fps is None else settings.output.fps
    try:
        with VideoWriter(partial if video.path.suffix else f"{partial}/", fps=fps) as writer:
            for chunk in pipe.stream(**call, callback_on_step_end=bar.on_step):
                writer.write(chunk.frames)
                starts.append(chunk.start)
                bar.on_chunk(chunk.num_frames)
    finally:
        bar.close()
    _remove(video.path)
    partial.rename(video.path)
    Record(video.record).save(
        prompt=video.prompt,
        seed=video.seed,
        frames=writer.num_frames,
        borders=starts[1:] if len(starts) < writer.num_frames else None,  # chunks of one frame have no seams to look at
        seconds=round(time.perf_counter() - started, 3),
        scores={},
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
