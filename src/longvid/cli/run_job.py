"""What the commands on run folders share: load the run's model, show how far it is, and say how to go on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longvid.cli.interrupts import Interrupts
from longvid.cli.job import DEFAULT_FPS, Job, load_model
from longvid.cli.load import num_launched, quiet_libraries
from longvid.cli.output_paths import OutputPaths
from longvid.cli.parser import say
from longvid.cli.progress import FrameBar
from longvid.cli.record import describe_output
from longvid.cli.request import GenerateSettings, OutputSettings, SchedulerSettings
from longvid.cli.run_options import RUN_OPTIONS
from longvid.cli.watch import check_watch_arguments, limits_of, watcher_of
from longvid.runs import Run, RunOptions, RunWatcher, begin


class RunJob(Job):
    """The run of `longvid generate --run-dir`: `load` begins the folder, `make` fills it."""

    def __init__(self, settings: Any, arguments: argparse.Namespace, interrupts: Interrupts):
        self.run_dir, self.arguments = Path(arguments.run_dir), arguments
        paths = OutputPaths(video=self.run_dir, record=self.run_dir)
        super().__init__(
            settings, paths, interrupts, command=arguments.command, quiet=arguments.quiet, debug=arguments.debug
        )
        self.options = run_options(settings.output, arguments)

    def load(self, image: Any, earlier: dict[str, Any] | None) -> None:
        """Load the model, check the whole request, and begin the run folder."""
        self.load_pipe()
        self.begin(image)

    def request(self, image: Any) -> Any:
        """What the loaded model is asked for; the noise comes from the seed that the run keeps."""
        call = {**self.call_arguments(image), "generator": None}
        return type(self.pipe).stream.request_type(**call)

    def begin(self, image: Any) -> None:
        """Begin the folder with the model that is loaded."""
        self._warn_unknown_words()
        request, model = self.request(image), model_values(self.settings)
        self.run = begin(self.run_dir, self.pipe, request, self.options, seed=self.settings.seed, model=model)

    def make(self) -> int:
        """Fill the folder; returns the exit code."""
        say(f"{self.run.num_frames} frames, seed {self.settings.seed}", quiet=self.quiet)
        return work(
            self.run, lambda watcher: self.run.resume(self.pipe, watcher=watcher), self.interrupts, self.arguments
        )


def model_values(settings: Any) -> dict[str, Any]:
    """What a run keeps of the settings to load its model again."""
    folder = Path(settings.model).expanduser()
    return {
        "name": str(folder.resolve()) if folder.is_dir() else settings.model,
        "device": settings.device,
        "dtype": settings.dtype,
        "scheduler": {"name": settings.scheduler.name, "options": dict(settings.scheduler.options)},
    }


def work(
    run: Run,
    act: Callable[[RunWatcher], Any],
    interrupts: Interrupts,
    arguments: argparse.Namespace,
    *,
    total: int | None = None,
) -> int:
    """Do something to a run under a progress bar; when it is stopped, say what there is and how to go on.

    Args:
        run: The run.
        act: Is called with a watcher.
        interrupts: Entered.
        arguments: With `quiet` and `json`.
        total: Frames to make; None counts on from those that there are.
    """
    check_watch_arguments(arguments, run.path)
    hidden = arguments.quiet or arguments.plain
    bar = FrameBar(total or run.num_frames, done=0 if total else run.num_made, disable=hidden)
    try:
        act(watcher_of(bar, interrupts, arguments))
    except KeyboardInterrupt as stop:
        bar.close()
        say(f"longvid: stopped; {_kept(run)}")
        return getattr(stop, "exit_code", 130)
    except BaseException:
        bar.close()
        say(f"longvid: {_kept(run)}")
        raise
    bar.close()
    report(run, arguments)
    return 0


def report(run: Run, arguments: argparse.Namespace) -> None:
    """Print what a run is, for people or as JSON."""
    if arguments.json:
        print(json.dumps(run.manifest.values(), indent=2, ensure_ascii=False))
    elif not arguments.quiet:
        print(summary(run))


def check_one_process() -> None:
    """Refuse several processes, of which one alone could fill the folder.

    Raises:
        ValueError: if `accelerate launch` or torchrun started more than one.
    """
    if (count := num_launched()) > 1:
        raise ValueError(f"a run folder is filled by one process; got {count} (--prompts spreads whole runs over them)")


def summary(run: Run) -> str:
    """What there is, for people."""
    manifest = run.manifest
    fps = float(manifest.options.rate)
    video = describe_output(run.video, num_frames=run.num_made, fps=fps) if run.video.is_file() else None
    size = f", {video['width']}x{video['height']}, {fps:g} fps, {video['bytes'] / 1e3:,.0f} kB" if video else ""
    lines = [f"{run.video}: {run.num_made} of {run.num_frames} frames in {len(manifest.chunks)} chunks{size}"]
    if manifest.mixed:
        lines.append(f"not made by one model on one machine: {', '.join(manifest.mixed)}")
    if not run.complete:
        lines.append(f"go on with `longvid resume {run.path}`")
    return "\n".join(lines)


def load_run_model(run: Run, arguments: argparse.Namespace) -> Any:
    """Load the model that a run was begun with, or the one that was named instead."""
    check_one_process()
    model = run.manifest.model
    name = arguments.model or model["name"]
    if name is None:
        raise ValueError(f"{run.path} was begun in Python and does not say where its model is: pass --model")
    scheduler = model["scheduler"] or {"name": None, "options": {}}
    settings = GenerateSettings(
        model=name,
        device=arguments.device or model["device"],
        dtype=model["dtype"] or "float32",
        scheduler=SchedulerSettings(_text_or_none(scheduler.get("name")), dict(scheduler.get("options") or {})),
    )
    say(f"loading {name} ...", quiet=arguments.quiet)
    if not arguments.debug:
        quiet_libraries()
    return load_model(settings, "LongVideoPipeline")


def check_generate_arguments(arguments: argparse.Namespace, output: OutputSettings) -> None:
    """Refuse what does not go together with a run folder, or without one.

    Raises:
        ValueError: naming the option.
    """
    if arguments.allow_different and arguments.prompts is None:
        raise ValueError("--allow-different is for --prompts and for `longvid resume`")
    if arguments.run_dir is None:
        given = [name for name in RUN_OPTIONS if getattr(arguments, name) not in (None, False)]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} is for runs in a folder: pass --run-dir too")
        return
    outputs = {"--output": output.path, "--contact-sheet": output.contact_sheet, "--show-masks": output.show_masks}
    if given := [name for name, value in outputs.items() if value is not None]:
        raise ValueError(f"a run folder holds its own video; expected --run-dir without {', '.join(given)}")
    if arguments.from_json:
        raise ValueError("expected --run-dir or --from-json; got both")
    run_options(output, arguments)
    check_watch_arguments(arguments, arguments.run_dir)


def run_options(output: OutputSettings, arguments: argparse.Namespace) -> RunOptions:
    """How the video of a run is kept."""
    given = {name: getattr(arguments, name) for name in ("keep_states", "chunk_frames", "max_rerolls")}
    if arguments.max_rerolls is not None and arguments.on_problem != "reroll":
        raise ValueError("--max-rerolls is for --on-problem reroll")
    return RunOptions(
        fps=DEFAULT_FPS if output.fps is None else output.fps,
        codec=output.codec,
        crf=output.crf,
        pixel_format=output.pixel_format,
        keep_frames=not arguments.no_keep_frames,
        on_problem=arguments.on_problem or "warn",
        limits=limits_of(arguments.limit or ()),
        **{name: value for name, value in given.items() if value is not None},
    )


def _kept(run: Run) -> str:
    if not run.num_made:
        made = "the steps of the whole video so far are kept" if run.has_steps else "no chunk was made yet"
        return f"{made}; go on with `longvid resume {run.path}`"
    return f"{run.num_made} of {run.num_frames} frames are in {run.path}; go on with `longvid resume {run.path}`"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
