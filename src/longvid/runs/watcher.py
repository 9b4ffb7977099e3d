"""Who looks on while a run is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longvid.metrics.diagnosis import Diagnosis
    from longvid.runs.manifest import Change, ChunkRecord
    from longvid.video.state import VideoChunk


@dataclass(frozen=True)
class RunPlan:
    """What is about to be made.

    Attributes:
        path: The run folder.
        fps: Frames per second of the video.
        num_frames: Frames of the whole video.
        start: The first frame that is made now.
        frames: How many frames are made now.
        chunks: How many chunks that is.
        first_chunk: The number of the first of them.
        windows: How many windows that is.
        parts: The first frame and the file of every other chunk that is on the disk.
    """

    path: Path
    fps: float
    num_frames: int
    start: int
    frames: int
    chunks: int
    first_chunk: int
    windows: int
    parts: tuple[tuple[int, Path], ...] = ()


class RunWatcher:
    """Is told what happens in a run; this one pays no heed. Override what you want to know."""

    def on_plan(self, plan: RunPlan) -> None:
        """Work begins: what is missing, or a chunk that is made again."""

    def on_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """After every call of the scheduler, as a pipeline's `callback_on_step_end`."""
        return {}

    def on_window(self, window: VideoChunk) -> None:
        """New frames are made; they are not on the disk yet."""

    def on_diagnosis(self, index: int, take: int, diagnosis: Diagnosis) -> None:
        """A take of a chunk was looked at; it is not in the manifest yet."""

    def on_reroll(self, index: int, take: int, change: Change) -> None:
        """A chunk that has a problem is made again, as another take with the seed of `change`."""

    def on_chunk(self, index: int, record: ChunkRecord) -> None:
        """A chunk is on the disk, in the manifest and in the video."""

    def on_end(self, error: BaseException | None) -> None:
        """Work ends; with what stopped it, if something did."""

    def shielded(self) -> AbstractContextManager[Any]:
        """Entered around every change of the folder, so that Ctrl-C can be held back until it is done."""
        return nullcontext()


class Watchers(RunWatcher):
    """Several watchers as one; each is told in turn.

    Args:
        watchers: They, the first told first.
    """

    def __init__(self, *watchers: RunWatcher):
        self.watchers = watchers

    def on_plan(self, plan: RunPlan) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.on_plan(plan)

    def on_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Tell all; each sees the tensors that those before it changed."""
        changed: dict[str, Any] = {}
        for watcher in self.watchers:
            changed.update(watcher.on_step(pipe, step, timestep, {**tensors, **changed}))
        return changed

    def on_window(self, window: VideoChunk) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.on_window(window)

    def on_diagnosis(self, index: int, take: int, diagnosis: Diagnosis) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.on_diagnosis(index, take, diagnosis)

    def on_reroll(self, index: int, take: int, change: Change) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.on_reroll(index, take, change)

    def on_chunk(self, index: int, record: ChunkRecord) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.on_chunk(index, record)

    def on_end(self, error: BaseException | None) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.on_end(error)

    @contextmanager
    def _all_shielded(self) -> Iterator[None]:
        with ExitStack() as stack:
            for watcher in self.watchers:
                stack.enter_context(watcher.shielded())
            yield

    def shielded(self) -> AbstractContextManager[Any]:
        """Enter those of all."""
        return self._all_shielded()


@contextmanager
def told_of_end(watcher: RunWatcher | None) -> Iterator[RunWatcher]:
    """Tell a watcher how the block ended; without one, nobody is told."""
    watcher = watcher or RunWatcher()
    try:
        yield watcher
    except BaseException as error:
        watcher.on_end(error)
        raise
    watcher.on_end(None)
