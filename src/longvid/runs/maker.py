"""The work on a run: windows become chunks, every chunk is on the disk before the next begins."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch

from longvid.metrics.diagnosis import Diagnosis, Finding
from longvid.pipelines.seeding import keys_of_seed
from longvid.runs.chunk_files import ChunkFiles
from longvid.runs.folder import RunFolder, check_file, digest_of
from longvid.runs.inputs import with_prompt
from longvid.runs.manifest import Change, ChunkRecord, Manifest
from longvid.runs.spans import Span, spans_from
from longvid.runs.takes import NotFinite, Take, policy_of, reroll_seed
from longvid.runs.watcher import RunPlan, RunWatcher
from longvid.video.join import JoinedVideo, join_videos
from longvid.video.state import StreamState, VideoChunk


class Maker:
    """Makes chunks of one run; the caller holds its lock.

    Args:
        folder: Its files.
        manifest: Its manifest; changed and saved with every chunk.
        pipe: The pipeline.
        request: The request, without defaults to fill in.
        watcher: Is told.
        different: How model and machine differ from those that the run was begun with; states are taken all the same.

    Raises:
        ValueError: if the request cannot be made.
    """

    def __init__(
        self,
        folder: RunFolder,
        manifest: Manifest,
        pipe: Any,
        request: Any,
        *,
        watcher: RunWatcher,
        different: Sequence[str] = (),
    ):
        self.folder, self.manifest, self.pipe = folder, manifest, pipe
        self.watcher, self.different = watcher, different
        self.policy = policy_of(manifest.options)
        self.request = replace(request, callback_on_step_end=watcher.on_step)
        checked = pipe.check_inputs(self.request)
        self.windows, self.keeps_steps = pipe.plan(checked), checked.on_host

    def check_next(self) -> None:
        """Check all that the next chunk needs before its first step; nothing is made or written.

        Raises:
            ValueError: if the state that it goes on from is not there, is damaged, or does not fit the request.
        """
        index = len(self.manifest.chunks)
        self._stream(index, self.manifest.change_of(index)).close()

    def make_rest(self) -> bool:
        """Make every chunk that is missing, and the finished video; False if the pipeline was interrupted."""
        with self.watcher.shielded():
            video = self.rebuild_video()
        self._announce(len(self.manifest.chunks), list(self._spans(self.manifest.next_window)))
        spans = self._spans(self.manifest.next_window)
        span = next(spans, None)
        while span is not None:
            change = self.manifest.change_of(len(self.manifest.chunks))
            with closing(self._stream(len(self.manifest.chunks), change)) as windows:
                while span is not None and _same(change, self.manifest.change_of(len(self.manifest.chunks))):
                    takes = self._takes(len(self.manifest.chunks), span, windows, change)
                    if takes is None:
                        return False
                    self._append(min(takes, key=lambda take: take.badness), video)
                    span = next(spans, None)
                    if len(takes) > 1:  # the next chunk goes on from the take that was kept
                        break
        self.finish()
        return True

    def remake(self, index: int, change: Change, *, keep_rest: bool) -> bool:
        """Make one chunk again and put it in place of the old one, in one step; False if the pipeline was interrupted."""
        old = self.manifest.chunks[index]
        span = next(self._spans(old.first_window))
        if (span.stop_window, span.stop) != (old.stop_window, old.stop):
            raise ValueError(f"chunk {index} has {old.stop - old.start} frames; now it would have other ones")
        changes = [c for c in self.manifest.changes if c.rest or c.chunk != index] + [change]
        effective = replace(self.manifest, changes=changes).change_of(index)
        self._announce(index, [span])
        with closing(self._stream(index, effective, take=old.take + 1)) as windows:
            made = self._make(index, span, windows, effective, take=old.take + 1)
        if made is None:
            return False
        self._look(index, made)
        with self.watcher.shielded():
            behind = self.manifest.chunks[index + 1 :] if keep_rest else []
            self.manifest.chunks = [*self.manifest.chunks[:index], made, *behind]
            self.manifest.changes = changes
            self.save()
            self.watcher.on_chunk(index, made)
        return True

    def finish(self) -> None:
        """Join the chunks into the finished video, if all are there and it is not there yet."""
        if self.manifest.num_made < self.manifest.num_frames:
            return
        if self.manifest.complete and self.folder.video.is_file():
            return
        with self.watcher.shielded():
            parts = self._checked_parts()
            count = join_videos(parts, self.folder.video, fps=self.manifest.options.rate)
            if count != self.manifest.num_frames:
                raise ValueError(f"the chunks of {self.folder.path} hold {count} of {self.manifest.num_frames} frames")
            self.manifest.finished = self.manifest.digest()
            self.save()

    def _announce(self, index: int, spans: Sequence[Span]) -> None:
        if spans:
            first, last = spans[0], spans[-1]
            self.watcher.on_plan(
                RunPlan(
                    path=self.folder.path,
                    fps=float(self.manifest.options.rate),
                    num_frames=self.manifest.num_frames,
                    start=first.start,
                    frames=last.stop - first.start,
                    chunks=len(spans),
                    first_chunk=index,
                    windows=last.stop_window - first.first_window,
                    parts=tuple(
                        (record.start, self.folder.chunk(number, record))
                        for number, record in enumerate(self.manifest.chunks)
                        if number != index
                    ),
                )
            )

    # --- one chunk ---------------------------------------------------------------------------------------------------

    def _make(
        self, index: int, span: Span, windows: Iterator[VideoChunk], change: Change, take: int = 1
    ) -> ChunkRecord | None:
        """Write a chunk's frames and state; the manifest does not know them yet."""
        began, state = time.perf_counter(), None
        record = ChunkRecord(
            span.first_window, span.stop_window, span.start, span.stop, take,
            video_bytes=0, video_sha256="", state_bytes=None, state_sha256=None,
            seed=change.seed, prompt=change.prompt, seconds=0.0, made="",
        )  # fmt: skip
        with ChunkFiles(self.folder, index, record) as files:
            missing = span.stop_window - span.first_window
            while missing and (part := next(windows, None)) is not None:
                self.policy.check_window(part)
                files.write(part.frames)
                self.watcher.on_window(part)
                state, missing = part.state, missing - part.ends_window
            if state is None or state.next_window != span.stop_window:  # interrupted by a callback
                return None
            files.finish()
            seconds, saved = round(time.perf_counter() - began, 3), self.folder.state(index, record)
            with self.watcher.shielded():
                files.keep()
                state.save(saved)
        return replace(
            record,
            **files.recorded(),
            state_bytes=saved.stat().st_size,
            state_sha256=digest_of(saved),
            seconds=seconds,
            made=now(),
        )

    def _takes(self, index: int, span: Span, windows: Iterator[VideoChunk], change: Change) -> list[Take] | None:
        """Make a chunk, and again with other seeds while it has problems and rerolls are left."""
        takes = [self._take(index, span, windows, change, 1)]
        while takes[-1] is not None and takes[-1].findings and len(takes) <= self.policy.max_rerolls:
            attempt = len(takes)
            other = replace(change, seed=reroll_seed(self._keys(change)[0], index, attempt))
            self.watcher.on_reroll(index, attempt + 1, other)
            with closing(self._stream(index, other, take=attempt + 1)) as again:
                takes.append(self._take(index, span, again, other, attempt + 1))
        made = [take for take in takes if take is not None]
        if len(made) < len(takes):
            return None
        if all(take.record is None for take in made):
            raise ValueError(f"all {len(made)} takes of chunk {index} hold NaN or infinity, which no video can hold")
        return made

    def _take(self, index: int, span: Span, windows: Iterator[VideoChunk], change: Change, number: int) -> Take | None:
        try:
            record = self._make(index, span, windows, change, number)
        except NotFinite:
            diagnosis = Diagnosis({}, (Finding("nan"),))
            self.watcher.on_diagnosis(index, number, diagnosis)
            if not self.policy.max_rerolls:
                raise
            return Take(None, diagnosis)
        return None if record is None else self._look(index, record)

    def _look(self, index: int, record: ChunkRecord) -> Take:
        take = self.policy.look(self.folder, index, self.manifest.chunks, record)
        if take.diagnosis is not None:
            self.watcher.on_diagnosis(index, record.take, take.diagnosis)
        return take

    def _append(self, take: Take, video: JoinedVideo) -> None:
        made, index = take.record, len(self.manifest.chunks)
        assert made is not None  # the best take has files
        with self.watcher.shielded():
            self.manifest.chunks.append(made)
            self.save()
            video.append(self.folder.chunk(index, made))
            self.watcher.on_chunk(index, made)
        self.policy.settle(self.folder, index, take)

    def save(self) -> None:
        """Write the manifest, then delete what it does not know any more."""
        keep, chunks = self.manifest.options.keep_states, self.manifest.chunks
        if keep is not None:
            old = len(chunks) - keep
            chunks[: max(0, old)] = [chunk.without_state() for chunk in chunks[: max(0, old)]]
        self.manifest.save(self.folder.path)
        self.folder.clean(self.manifest)

    # --- what it continues -------------------------------------------------------------------------------------------

    def _stream(self, index: int, change: Change, *, take: int = 1) -> Generator[VideoChunk, None, None]:
        keys = self._keys(change)
        request = with_prompt(self.request, change.prompt)
        if self.keeps_steps:  # its seed is that of the keys, whatever the generator is
            steps = self.folder.steps(index, take, self.different)
            request = replace(request, checkpoint=steps, generator=torch.Generator())
        if index == 0:
            return self.pipe.generate(request, keys=keys)
        state = self._state_behind(index - 1)
        fingerprint = {} if self.different else state.fingerprint
        return self.pipe.generate(replace(request, resume=replace(state, keys=keys, fingerprint=fingerprint)))

    def _keys(self, change: Change) -> tuple[int, ...]:
        return self.manifest.keys if change.seed is None else keys_of_seed(change.seed)

    def _state_behind(self, index: int) -> StreamState:
        record = self.manifest.chunks[index]
        if record.state_sha256 is None:
            kept = [number + 1 for number, chunk in enumerate(self.manifest.chunks) if chunk.state_sha256]
            others = f"; chunks {kept[0]} to {kept[-1]} can be made" if kept else ""
            raise ValueError(
                f"chunk {index + 1} goes on from the state behind chunk {index}, which was not kept"
                f" (keep_states={self.manifest.options.keep_states}){others}"
            )
        path = check_file(self.folder.state(index, record), record.state_bytes, record.state_sha256)
        state = StreamState.load(path)
        if state.next_window != record.stop_window:
            raise ValueError(f"{path} goes on at window {state.next_window}; expected {record.stop_window}")
        return state

    def _spans(self, first_window: int) -> Iterator[Span]:
        return spans_from(self.windows, first_window, self.manifest.options.chunk_frames)

    # --- the video ---------------------------------------------------------------------------------------------------

    def rebuild_video(self) -> JoinedVideo:
        """Join the chunks that are there into a video that can grow; when all are there, `finish` is still to do it."""
        if self.manifest.num_made == self.manifest.num_frames:
            return JoinedVideo(self.folder.video, [], fps=self.manifest.options.rate)
        return JoinedVideo(self.folder.video, self._checked_parts(), fps=self.manifest.options.rate)

    def _checked_parts(self) -> list[Any]:
        return [
            check_file(self.folder.chunk(index, record), record.video_bytes, record.video_sha256)
            for index, record in enumerate(self.manifest.chunks)
        ]


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _same(a: Change, b: Change) -> bool:
    return (a.seed, a.prompt) == (b.seed, b.prompt)
