"""What `longvid evaluate` measures: videos, with the prompt and the chunk borders that a run folder or a record knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvid.cli.output_paths import record_names


@dataclass(frozen=True)
class Evaluated:
    """One video.

    Attributes:
        path: The file, the folder of PNGs, or the run folder.
        files: What is read of it.
        num_frames: Its length.
        prompt: What it should show; None where nobody said.
        borders: First frames of its chunks behind the first; None where nobody said.
    """

    path: Path
    files: Path | list[Path]
    num_frames: int
    prompt: str | None
    borders: Sequence[int] | None


def find_evaluated(
    paths: Iterable[str], *, prompt: str | None, borders: Callable[[int], Sequence[int]] | None
) -> list[Evaluated]:
    """All videos that the paths mean, each once, opened but not read.

    Args:
        paths: Files, folders of PNGs, folders of videos, run folders.
        prompt: In place of what a run or a record knows.
        borders: From the number of frames to the borders, in place of what a run or a record knows.

    Raises:
        ValueError: if a path means no video, or a run has no frames yet.
    """
    from longvid.metrics.reading import find_videos, open_video

    found: dict[Path, Evaluated] = {}
    for path in paths:
        if (Path(path) / "run.json").is_file():
            videos = [(Path(path), *_read_run(Path(path)))]
        else:
            videos = [(video, video, *_read_record(video)) for video in find_videos(path)]
        for video, files, known_prompt, known_borders in videos:
            num_frames = open_video(files)[0].num_frames
            given = known_borders if borders is None else borders(num_frames)
            found.setdefault(video, Evaluated(video, files, num_frames, prompt or known_prompt, given))
    return list(found.values())


def _read_record(video: Path) -> tuple[str | None, list[int] | None]:
    """Prompt (if there is one for all frames) and borders, if `longvid generate` left its record beside the video.

    A file that is no such record, or that of another video, says nothing.
    """
    told = (_read_record_file(path, video) for path in record_names(video, is_folder=video.is_dir()))
    return next((known for known in told if known is not None), (None, None))


def _read_record_file(path: Path, video: Path) -> tuple[str | None, list[int] | None] | None:
    """What a file says about the video; None if it is no record of it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        prompts, output = {str(prompt) for prompt in record["prompts"]}, record["output"]
        borders = [int(border) for border in output.get("borders", ()) if int(border) > 0] or None
        same = Path(output["path"]).name == video.name and (video.is_dir() or output["bytes"] == video.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (prompts.pop() if len(prompts) == 1 else None, borders) if same else None


def _read_run(path: Path) -> tuple[list[Path], str | None, list[int]]:
    """Files of the frames, prompt (if there is one for all frames) and borders of a run folder."""
    from longvid.runs import Run

    run = Run(path)
    files, chunks = run.readable(), run.manifest.chunks
    prompts = set(_texts(run.manifest.request.get("prompt")))
    prompts |= {chunk.prompt for chunk in chunks if chunk.prompt}
    return files, prompts.pop() if len(prompts) == 1 else None, [chunk.start for chunk in chunks if chunk.start]


def _texts(prompt: Any) -> Iterator[str]:
    """All texts of a prompt: one, a list, or a list for each video of a batch."""
    if isinstance(prompt, str):
        yield prompt
    else:
        for part in prompt or ():
            yield from _texts(part)
