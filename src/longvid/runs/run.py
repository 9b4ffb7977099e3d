"""A run: a video in a folder of its own, that can be gone on with, changed in part, made longer and branched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from longvid.pipelines.distribution import check_alone
from longvid.runs.environment import differences, environment
from longvid.runs.folder import RunFolder, check_file
from longvid.runs.inputs import MAX_BYTES, lengthened, load_inputs, unpack
from longvid.runs.lock import RunLock
from longvid.runs.maker import Maker, now
from longvid.runs.manifest import Change, Manifest
from longvid.runs.reader import TEXT
from longvid.runs.schema import MAX_SEED, load_manifest
from longvid.runs.spans import spans_from
from longvid.runs.watcher import RunWatcher, told_of_end
from longvid.video.io import VideoReader, read_video


class Run:
    """A run folder that exists.

    Every method that changes it holds the folder's lock, and leaves it whole wherever it is stopped: `resume` then goes
    on from the last chunk that is on the disk.

    Args:
        path: The folder.

    Raises:
        ValueError: if it is no run folder, is damaged, or was made by a newer longvid.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.manifest: Manifest = load_manifest(self.path)

    @property
    def video(self) -> Path:
        """The video file, playable from the first chunk on."""
        return self._folder.video

    def read(self, *, as_uint8: bool = False) -> VideoReader:
        """Open the frames that are made: as they were made where the run keeps them, else as the video shows them.

        Args:
            as_uint8: Yield 8-bit values in place of floats in [0, 1].

        Returns:
            What `read_video` gives: an iterable of frames (3, H, W).

        Raises:
            ValueError: if there is none yet, or a file is damaged.
        """
        return read_video(self.readable(), as_uint8=as_uint8)

    def readable(self) -> list[Path]:
        """The files that `read` reads, one behind the other.

        Raises:
            ValueError: if there is none yet, or a file of frames is missing, damaged or a link.
        """
        if not self.num_made:
            raise ValueError(f"the run {self.path} has no frames yet")
        if not self.manifest.options.frames_apart:
            return [self.video]
        return [
            check_file(self._folder.frames(index, record), record.frames_bytes, record.frames_sha256)
            for index, record in enumerate(self.manifest.chunks)
        ]

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return self.manifest.num_frames

    @property
    def has_steps(self) -> bool:
        """Whether steps of a chunk are kept that is under way, where a chunk is a whole video."""
        return bool(self._folder.steps_under_way(len(self.manifest.chunks)))

    @property
    def num_made(self) -> int:
        """Frames that are on the disk."""
        return self.manifest.num_made

    @property
    def complete(self) -> bool:
        """Whether every frame is made and the video is finished."""
        return self.manifest.complete and self.video.is_file()

    def resume(self, pipe: Any, *, allow_different: bool = False, watcher: RunWatcher | None = None) -> Run:
        """Make what is missing. The finished video has, frame by frame, the bits of one that was never stopped.

        Args:
            pipe: The pipeline that the run was begun with.
            allow_different: Go on although the model or the machine is another one.
            watcher: Is told of every step, window and chunk.

        Raises:
            ValueError: if something differs, which is named, or a file of the run is damaged.
        """
        with told_of_end(watcher) as watcher, self._opened() as folder:
            self._maker(folder, pipe, allow_different, watcher).make_rest()
        return self

    def reroll(
        self,
        pipe: Any,
        *,
        chunk: int,
        seed: int,
        prompt: str | None = None,
        keep_rest: bool = True,
        allow_different: bool = False,
        watcher: RunWatcher | None = None,
    ) -> Run:
        """Make one chunk again, with another seed.

        Args:
            pipe: The pipeline.
            chunk: Its number.
            seed: Its new seed; the other chunks keep theirs.
            prompt: Its new prompt; None keeps it.
            keep_rest: Whether the chunks behind it stay as they are, with a seam before the next one if they do not
                continue it well; else they are made again, continuing it.
            allow_different: As for `resume`.
            watcher: As for `resume`.

        Raises:
            ValueError: if there is no such chunk, or the state before it was not kept; and as `resume`.
        """
        _check_seed(seed)
        _check_prompt(prompt)
        with told_of_end(watcher) as watcher, self._opened() as folder:
            if not 0 <= chunk < len(self.manifest.chunks):
                raise ValueError(f"chunk must be one of the {len(self.manifest.chunks)} that are made; got {chunk}")
            complete = self.manifest.num_made == self.num_frames
            maker = self._maker(folder, pipe, allow_different, watcher)
            if maker.remake(chunk, Change(chunk, False, seed, prompt), keep_rest=keep_rest):
                if complete or not keep_rest:
                    maker.make_rest()
                else:
                    maker.rebuild_video()
        return self

    def extend(
        self,
        pipe: Any,
        *,
        num_frames: int,
        prompt: str | None = None,
        allow_different: bool = False,
        watcher: RunWatcher | None = None,
    ) -> Run:
        """Make the video longer; its frames are then those of a run that was begun with this length.

        A last chunk that the end of the video cut short is made again as a whole one. Whatever is refused is refused
        before anything in the folder changes.

        Args:
            pipe: The pipeline.
            num_frames: Length of the longer video.
            prompt: A prompt for the new frames; None goes on with the last one. Where every prompt has a negative prompt
                of its own, the new one takes the last of them.
            allow_different: As for `resume`.
            watcher: As for `resume`.

        Raises:
            ValueError: if it is not longer, or the longer request cannot be made; and as `resume`.
        """
        _check_prompt(prompt)
        with told_of_end(watcher) as watcher, self._opened() as folder:
            longer = replace(self.manifest, request=lengthened(self.manifest.request, num_frames, prompt))
            maker = self._maker(folder, pipe, allow_different, watcher, longer)
            if longer.chunks:
                last = longer.chunks[-1]
                span = next(spans_from(maker.windows, last.first_window, longer.options.chunk_frames))
                if prompt is not None or (span.stop_window, span.stop) != (last.stop_window, last.stop):
                    longer.chunks = longer.chunks[:-1]
            if longer.chunks and longer.chunks[-1].state_sha256 is None:
                raise ValueError("the state that the longer video goes on from was not kept")
            maker.check_next()  # from here on the run is the longer one, and its last chunk may be gone
            self.manifest = longer
            maker.save()
            maker.make_rest()
        return self

    def branch(
        self, run_dir: str | os.PathLike[str], *, from_chunk: int, seed: int | None = None, prompt: str | None = None
    ) -> Run:
        """Begin another run with the chunks before one of this run; they are shared, not copied, where the disk can.

        Args:
            run_dir: Folder of the new run.
            from_chunk: First chunk that the new run makes itself.
            seed: Seed of all that it makes; None keeps this run's.
            prompt: Prompt of all that it makes; None keeps this run's.

        Raises:
            ValueError: if there is no such chunk, the state before it was not kept, or the folder is not empty.
        """
        if seed is not None:
            _check_seed(seed)
        _check_prompt(prompt)
        with self._opened() as folder:
            chunks = self.manifest.chunks
            if not 0 <= from_chunk <= len(chunks):
                raise ValueError(
                    f"from_chunk must be from 0 to {len(chunks)}, the chunks that are made; got {from_chunk}"
                )
            if from_chunk and chunks[from_chunk - 1].state_sha256 is None:
                raise ValueError(
                    f"the state behind chunk {from_chunk - 1}, which the branch goes on from, was not kept"
                )
            if prompt is not None and "prompt" not in self.manifest.request:
                raise ValueError("this run was begun with prompt_embeds; it takes no other prompt")
            changes = [change for change in self.manifest.changes if change.rest or change.chunk < from_chunk]
            if seed is not None or prompt is not None:
                changes.append(Change(from_chunk, True, seed, prompt))
            shared = chunks[:from_chunk]
            branched = replace(
                self.manifest,
                chunks=shared,
                changes=changes,
                finished=None,
                parent=str(self.path.resolve()),
                created=now(),
            )
            other = RunFolder(Path(run_dir), folder.options)
            other.create()
            with RunLock(other.path):
                other.create()
                self.shared = folder.share(other, branched)
                branched.save(other.path)
        return Run(run_dir)

    # --- opening -----------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path, self.manifest.options)

    @contextmanager
    def _opened(self) -> Iterator[RunFolder]:
        folder = self._folder
        folder.check_own()
        with RunLock(self.path):
            self.manifest = load_manifest(self.path)  # another process may have gone on
            folder.check_own()
            folder.clean(self.manifest)
            yield folder

    def _maker(
        self,
        folder: RunFolder,
        pipe: Any,
        allow_different: bool,
        watcher: RunWatcher,
        manifest: Manifest | None = None,
    ) -> Maker:
        check_alone(pipe)
        manifest = manifest or self.manifest
        if manifest.model["class"] != type(pipe).__name__:
            raise ValueError(f"{self.path} was made with a {manifest.model['class']}; got a {type(pipe).__name__}")
        different = self._differences(pipe)
        if different and not allow_different:
            raise ValueError(
                f"{self.path} would not go on bit for bit, because this differs: {', '.join(different)};"
                f" --allow-different (allow_different=True) goes on all the same"
            )
        if different:
            manifest.mixed = [*manifest.mixed, *(text for text in different if text not in manifest.mixed)]
        try:
            request = self._request(folder, pipe, manifest)
            return Maker(folder, manifest, pipe, request, watcher=watcher, different=different)
        except (TypeError, KeyError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            raise ValueError(f"the request of {self.path} cannot be made: {error}") from error

    def _differences(self, pipe: Any) -> list[str]:
        known, now_known = self.manifest.fingerprint, pipe.known_fingerprint()
        parts = [name for name in {**known, **now_known} if known.get(name) != now_known.get(name)]
        return [f"{name} of the model" for name in parts] + differences(self.manifest.environment, environment(pipe))

    def _request(self, folder: RunFolder, pipe: Any, manifest: Manifest) -> Any:
        tensors = {}
        if manifest.inputs_sha256 is not None:
            if (manifest.inputs_bytes or 0) > MAX_BYTES:
                raise ValueError(f"{folder.inputs} is too large: {manifest.inputs_bytes} of {MAX_BYTES} bytes")
            tensors = load_inputs(check_file(folder.inputs, manifest.inputs_bytes, manifest.inputs_sha256))
        return unpack(type(pipe).stream.request_type, manifest.request, tensors)


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must lie in [0, 2^63); got {seed!r}")


def _check_prompt(prompt: str | None) -> None:
    if prompt is None:
        return
    if not isinstance(prompt, str) or len(prompt) > TEXT:  # a manifest with a longer one could not be read again
        got = f"{len(prompt)} characters" if isinstance(prompt, str) else repr(prompt)
        raise ValueError(f"prompt must be a string of up to {TEXT} characters; got {got}")
