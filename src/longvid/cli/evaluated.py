"""What `longvid evaluate` measures: videos by themselves, and run folders, which know their prompt and chunk borders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Evaluated:
    """One video.

    Attributes:
        path: The file, or the folder of PNGs.
        num_frames: Its length.
        prompt: What it should show; None where nobody said.
        borders: First frames of its chunks behind the first; None where nobody said.
    """

    path: Path
    num_frames: int
    prompt: str | None
    borders: Sequence[int] | None


def find_evaluated(
    paths: Iterable[str], *, prompt: str | None, borders: Callable[[int], Sequence[int]] | None
) -> list[Evaluated]:
    """All videos that the paths mean, each once, opened but not read.

    Args:
        paths: Files, folders of PNGs, folders of videos, run folders.
        prompt: In place of what a run knows.
        borders: From the number of frames to the borders, in place of what a run knows.

    Raises:
        ValueError: if a path means no video, or a run has no frames yet.
    """
    from longvid.metrics.reading import find_videos, open_video

    found: dict[Path, Evaluated] = {}
    for path in paths:
        known_prompt, known_borders = prompt, None
        if (Path(path) / "run.json").is_file():
            video, run_prompt, known_borders = _read_run(Path(path))
            videos, known_prompt = [video], prompt or run_prompt
        else:
            videos = find_videos(path)
        for video in videos:
            num_frames = open_video(video)[0].num_frames
            given = known_borders if borders is None else borders(num_frames)
            found.setdefault(video, Evaluated(video, num_frames, known_prompt, given))
    return list(found.values())


def _read_run(path: Path) -> tuple[Path, str | None, list[int]]:
    """Video, prompt (if there is one for all frames) and borders of a run folder."""
    from longvid.runs import Run

    run = Run(path)
    if not run.num_made:
        raise ValueError(f"the run {path} has no frames yet")
    chunks = run.manifest.chunks
    prompt = run.manifest.request.get("prompt")
    prompts = {prompt} if isinstance(prompt, str) else set(prompt or ())
    prompts |= {chunk.prompt for chunk in chunks if chunk.prompt}
    return run.video, prompts.pop() if len(prompts) == 1 else None, [chunk.start for chunk in chunks if chunk.start]
