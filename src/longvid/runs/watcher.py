"""Who looks on while a run is made."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longvid.runs.manifest import ChunkRecord
    from longvid.video.state import VideoChunk


class RunWatcher:
    """Is told what happens in a run; this one pays no heed. Override what you want to know."""

    def on_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """After every call of the scheduler, as a pipeline's `callback_on_step_end`."""
        return {}

    def on_window(self, window: VideoChunk) -> None:
        """New frames are made; they are not on the disk yet."""

    def on_chunk(self, index: int, record: ChunkRecord) -> None:
        """A chunk is on the disk, in the manifest and in the video."""

    def shielded(self) -> AbstractContextManager[Any]:
        """Entered around every change of the folder, so that Ctrl-C can be held back until it is done."""
        return nullcontext()
