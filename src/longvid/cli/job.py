"""One run: load the model, stream the frames into files, keep the record true all the while."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longvid.bundled import bundled_models
from longvid.cli.interrupts import Interrupts
from longvid.cli.load import load_pipeline, quiet_libraries
from longvid.cli.output_paths import OutputPaths
from longvid.cli.parser import nearest, say, warn
from longvid.cli.progress import FrameBar
from longvid.cli.record import Record, describe_output, start_record

DEFAULT_FPS = 8
_WRITTEN_FRAMES = 64
_NOT_RECORDED = {
    "return_dict", "output_type", "output_masks", "callback_on_step_end_tensor_inputs",
    "image", "video", "image_embeds", "anchor_image",
}  # fmt: skip


class Job:
    """First `load` the model, then `make` the video; `summary` says what came of it.

    This is the run of `longvid generate`; another command's differs in the class it loads and the arguments of the call.
    """

    pipeline_kind = "LongVideoPipeline"

    def __init__(
        self,
        settings: Any,
        paths: OutputPaths,
        interrupts: Interrupts,
        *,
        command: str,
        quiet: bool,
        debug: bool,
        on_load: Callable[[Any], None] | None = None,
    ):
        self.settings, self.paths, self.interrupts = settings, paths, interrupts
        self.command, self.quiet, self.debug, self.on_load = command, quiet, debug, on_load
        self.started = time.perf_counter()
        self.timing: dict[str, float | None] = {}
        self.num_frames = 0
        self.borders: list[int] = []
        self.single_frames = True

    def load(self, image: Any, earlier: dict[str, Any] | None) -> None:
        """Load the model, check the whole request, and write the record's first version.

        Args:
            image: The first frame, or None.
            earlier: The record of the run that is made again, to compare the models.
        """
        settings = self.settings
        self.fps = DEFAULT_FPS if settings.output.fps is None else settings.output.fps
        self.writer = _open_writer(self.paths.video, settings, self.fps)
        self.load_pipe()
        self._warn_unknown_words()
        self.call = self.call_arguments(image)
        request = self.pipe.check_inputs(type(self.pipe).stream.request_type(**self.call))
        self.total = self._count_frames(request)
        self.timing["load_seconds"] = round(time.perf_counter() - self.started, 3)
        self.record = start_record(self.paths.record, self.command, settings, self.pipe, _recorded(request))
        if earlier is not None:
            _compare_models(self.record, earlier)
        self.extras = self._extras()

    def load_pipe(self) -> None:
        """Load the model."""
        say(f"loading {self.settings.model} ...", quiet=self.quiet)
        if not self.debug:
            quiet_libraries()
        self.pipe = load_model(self.settings, self.pipeline_kind)
        if self.on_load is not None:
            self.on_load(self.pipe)

    def make(self) -> int:
        """Stream the frames into the files; whatever happens, they are closed and the record says how it ended."""
        say(f"{self.total} frames, seed {self.settings.seed}", quiet=self.quiet)
        self.bar = self._make_bar()
        self.streaming = time.perf_counter()
        status, failure = "complete", None
        try:
            with self.interrupts.shielded():
                self.record.save(unknown_words=self.unknown)
            self._stream()
        except KeyboardInterrupt as stop:
            status, failure = "interrupted", stop
        except BaseException as error:
            status, failure = "failed", error
        with self.interrupts.shielded(finish=True):
            failure = self._finish(status, failure)
        if isinstance(failure, KeyboardInterrupt):
            say(f"longvid: stopped; {self._kept()}")
            return getattr(failure, "exit_code", 130)
        if failure is not None:
            say(f"longvid: {self._kept()}")
            raise failure
        return 0

    def summary(self) -> str:
        """What was made, for people."""
        output, timing = self.record.values["output"], self.record.values["timing"]
        if not self.num_frames:
            return f"{self.paths.record}: {self.record.values['status']}, no frames"
        encoding = " ".join(part for part in (output["codec"], output["pixel_format"]) if part)
        lines = [
            f"{self.paths.video}: {output['frames']} frames, {output['width']}x{output['height']}, "
            f"{output['fps']:g} fps, {encoding}, {output['bytes'] / 1e3:,.0f} kB",
            f"{self.paths.record}: everything needed to make it again (seed {self.settings.seed})",
            *(f"{extra}: drawn" for extra in (self.paths.contact_sheet, self.paths.masks) if extra),
            f"{timing['total_seconds']:.1f} s: load {timing['load_seconds']:.1f} s, first frame after "
            f"{timing['first_frame_seconds']:.1f} s, then {timing['frames_per_second']:.2f} frames/s",
        ]
        return "\n".join(lines)

    def call_arguments(self, image: Any) -> dict[str, Any]:
        """The keyword arguments of the pipeline's call; pictures and videos are read."""
        import torch

        call = self.settings.call_arguments()
        known = type(self.pipe).stream.request_type.field_names()
        for name in call:
            if name not in known:
                raise ValueError(f"{type(self.pipe).__name__} takes no argument {name!r}{nearest(name, known)}")
        if image is not None:
            call["image"] = image
        if self.settings.video is not None:
            from longvid.video.io import read_video

            call["video"] = read_video(self.settings.video)
        if self.paths.masks is not None:
            if "output_masks" not in known:
                raise ValueError(f"--show-masks: {type(self.pipe).__name__} predicts no masks")
            call["output_masks"] = True
        assert self.settings.seed is not None  # one was drawn where none was given
        call["generator"] = torch.Generator().manual_seed(self.settings.seed)
        return call

    def _count_frames(self, request: Any) -> int:
        if request.num_frames == float("inf"):
            raise ValueError("num_frames must be a whole number: a file has a last frame")
        return int(request.num_frames)

    def _make_bar(self) -> Any:
        return FrameBar(self.total, disable=self.quiet)

    def _extras(self) -> list[Any]:
        from longvid.cli.mask_sheet import MaskSheet
        from longvid.cli.sheet import FrameSheet

        extras: list[Any] = []
        if self.paths.contact_sheet is not None:
            extras.append(FrameSheet(self.paths.contact_sheet, num_frames=self.total))
        if self.paths.masks is not None:
            extras.append(MaskSheet(self.paths.masks, num_frames=self.total, fps=self.fps))
        return extras

    def _stream(self) -> None:
        for chunk in self.pipe.stream(**self.call, callback_on_step_end=self.bar.on_step):
            with self.interrupts.shielded():
                for frames in chunk.frames.split(_WRITTEN_FRAMES, dim=2):
                    self.writer.write(frames)
                self.num_frames += chunk.num_frames
                self._note_border(chunk)
                if "first_frame_seconds" not in self.timing:
                    self.timing["first_frame_seconds"] = round(time.perf_counter() - self.streaming, 3)
                    self.first = chunk.num_frames
                for extra in self.extras:
                    extra.add(chunk)
                self.bar.on_chunk(chunk.num_frames)

    def _note_border(self, chunk: Any) -> None:
        """Keep where a chunk begins behind the first, for `longvid evaluate`."""
        self.single_frames = self.single_frames and chunk.num_frames == 1
        if chunk.start:
            self.borders.append(chunk.start)

    def _finish(self, status: str, failure: BaseException | None) -> BaseException | None:
        """Close every file, each whatever became of the others, and save the record; returns the first failure."""
        self.bar.close()
        now = time.perf_counter()
        for file in (self.writer, *self.extras):
            try:
                file.close()
            except Exception as error:
                status, failure = ("failed" if failure is None else status), failure or error
        first = self.timing.setdefault("first_frame_seconds", None)
        after = now - self.streaming - (first or 0)
        rest = self.num_frames - self.first if first is not None else 0
        self.timing |= {
            "generate_seconds": round(now - self.streaming, 3),
            "total_seconds": round(time.perf_counter() - self.started, 3),
            "frames_per_second": round(rest / after if rest else self.num_frames / (now - self.streaming), 3),
        }
        error = None if failure is None or status == "interrupted" else f"{type(failure).__name__}: {failure}"
        output = describe_output(self.paths.video, num_frames=self.num_frames, fps=self.fps)
        output["borders"] = [] if self.single_frames else self.borders  # single frames have no seams
        self.record.save(status=status, error=error, timing=self.timing, output=output)
        return failure

    def _kept(self) -> str:
        if not self.num_frames:
            return "no frame was made yet"
        return f"the {self.num_frames} of {self.total} frames made so far are in {self.paths.video}"

    def _warn_unknown_words(self) -> None:
        from longvid.pipelines.vocabulary import unknown_words

        negative = self.settings.negative_prompt
        self.unknown = unknown_words(self.pipe, [*self.settings.prompt, *([negative] if negative else [])])
        if self.unknown:
            model = self.settings.model
            hint = f"; `longvid models {model}` lists those it knows" if model in bundled_models() else ""
            warn(f"{model} never learned these words: {', '.join(self.unknown)}{hint}")


def report(job: Job, arguments: argparse.Namespace) -> None:
    """Print what was made, as the record or for people."""
    if arguments.json:
        print(json.dumps(job.record.values, indent=2, ensure_ascii=False))
    elif not arguments.quiet:
        print(job.summary())


def load_model(settings: Any, kind: str) -> Any:
    """Load the model that settings name, with their scheduler.

    Args:
        settings: With `model`, `device`, `dtype` and `scheduler`.
        kind: The public class of longvid that loads it.
    """
    from longvid.cli.schedulers import make_scheduler

    pipe = load_pipeline(settings.model, device=settings.device, dtype=settings.dtype, kind=kind)
    if settings.scheduler.name or settings.scheduler.options:
        pipe.scheduler = make_scheduler(pipe.scheduler, settings.scheduler.name, settings.scheduler.options)
    return pipe


def _open_writer(path: Path, settings: Any, fps: float) -> Any:
    from longvid.video.io import VideoWriter

    output = settings.output
    target = path if path.suffix and not str(output.path).endswith("/") else f"{path}/"
    return VideoWriter(target, fps=fps, codec=output.codec, crf=output.crf, pixel_format=output.pixel_format)


def _compare_models(record: Record, earlier: dict[str, Any]) -> None:
    before = dict(earlier.get("model") or {}).get("fingerprint") or {}
    now = record.values["model"]["fingerprint"]
    changed = sorted(part for part in {*before, *now} if before.get(part) != now.get(part))
    if changed:
        warn(f"the video will differ from the recorded one: {', '.join(changed)} of the model changed since")


def _recorded(request: Any) -> dict[str, Any]:
    """The arguments of a checked request, defaults filled in, as far as they are plain values."""
    from longvid.samplers.guidance_schedule import GuidanceSchedule

    values = {name: getattr(request, name) for name in sorted(request.field_names() - _NOT_RECORDED)}
    scale = values.get("guidance_scale")
    if isinstance(scale, GuidanceSchedule):
        values["guidance_scale"] = asdict(scale)
    kinds = (bool, int, float, str, list, tuple, dict)
    return {name: value for name, value in values.items() if isinstance(value, kinds)}
