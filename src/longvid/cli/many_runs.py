"""`longvid generate --prompts`: a run for each line of a file, spread over the processes of `accelerate launch`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from longvid.cli.generate import open_image, sources_of
from longvid.cli.interrupts import Interrupts
from longvid.cli.job import load_model
from longvid.cli.load import quiet_libraries
from longvid.cli.main import describe
from longvid.cli.output_paths import check_sources_kept
from longvid.cli.parser import say
from longvid.cli.prompt_lines import PlannedRun, plan_runs
from longvid.cli.request import GenerateSettings
from longvid.cli.run_job import RunJob, check_generate_arguments, model_values, run_options, work
from longvid.pipelines.distribution import process_state
from longvid.runs import Run, RunOptions, check_request
from longvid.runs.manifest import NAME, Manifest


def make_all(arguments: argparse.Namespace, common: GenerateSettings) -> int:
    """Make what is missing of the runs of all lines; all are checked before the first one is begun.

    A run that fails does not stop the others.

    Args:
        arguments: The command line.
        common: What it says about every line.

    Returns:
        The exit code: 1 if a run failed.

    Raises:
        ValueError: naming the line that cannot be made, or that is not what its folder was begun with.
    """
    if arguments.run_dir is None:
        raise ValueError("--prompts makes runs in folders: pass --run-dir too")
    if arguments.words and common.prompt:
        raise ValueError("expected prompts on the command line or --prompts; got both")
    check_generate_arguments(arguments, common.output)
    planned = plan_runs(Path(arguments.prompts), common, Path(arguments.run_dir))
    if arguments.events is not None:
        for run in planned:
            check_sources_kept({"--events": Path(arguments.events)}, sources_of(run.settings))
    options = run_options(common.output, arguments)
    waiting = [run for run in planned if not _is_finished(run, options, arguments.allow_different)]
    with Interrupts() as interrupts:
        processes = process_state(common.device, timedelta(days=365))
        batch = _Batch(arguments, planned, interrupts, processes)
        code = batch.make(waiting)
        if code in (0, 1):  # a process that ends with an error would have the others stopped
            processes.wait_for_everyone()
            processes.destroy_process_group()
    return code


class _Batch:
    """The share of one process.

    Args:
        arguments: The command line.
        planned: All lines.
        interrupts: Entered.
        processes: This process among the others, accelerate's `PartialState`.
    """

    def __init__(
        self, arguments: argparse.Namespace, planned: Sequence[PlannedRun], interrupts: Interrupts, processes: Any
    ):
        self.arguments, self.planned, self.interrupts, self.processes = arguments, planned, interrupts, processes
        self.quiet = arguments.quiet or not processes.is_main_process
        self.shown = argparse.Namespace(**{**vars(arguments), "quiet": self.quiet or arguments.json, "json": False})
        self.failed: list[str] = []

    def make(self, waiting: Sequence[PlannedRun]) -> int:
        """Make this process's share of the runs that are not finished; returns the exit code."""
        from accelerate.utils import broadcast_object_list

        numbers = [[run.number for run in waiting]]
        broadcast_object_list(numbers)  # all processes split the same list
        waiting = [self.planned[number - 1] for number in numbers[0]]
        say(f"{len(self.planned) - len(waiting)} of {len(self.planned)} runs are finished", quiet=self.quiet)
        with self.processes.split_between_processes(list(waiting)) as share:
            if not share:
                return 0
            self.pipe = self._load(share[0].settings)
            for run in waiting:
                if not (run.path / NAME).exists():
                    self._check(run)
            for run in share:
                if code := self._make_one(run):
                    return code
        if self.failed:
            say(
                f"longvid: {len(self.failed)} runs failed: {', '.join(self.failed)}; the same command goes on with them"
            )
        return 1 if self.failed else 0

    def _load(self, settings: GenerateSettings) -> Any:
        say(f"loading {settings.model} ...", quiet=self.quiet)
        if not self.arguments.debug:
            quiet_libraries()
        spread = settings.device is None and self.processes.num_processes > 1
        device = str(self.processes.device) if spread else settings.device
        return load_model(_on(settings, device), RunJob.pipeline_kind)

    def _job(self, run: PlannedRun) -> RunJob:
        arguments = argparse.Namespace(**{**vars(self.shown), "run_dir": str(run.path)})
        job = RunJob(run.settings, arguments, self.interrupts)
        job.pipe = self.pipe
        return job

    def _check(self, run: PlannedRun) -> None:
        try:
            job = self._job(run)
            check_request(self.pipe, job.request(open_image(run.settings.image)), job.options)
        except ValueError as error:
            raise ValueError(f"{run.source}: {error}") from error

    def _make_one(self, run: PlannedRun) -> int:
        error = None
        try:
            code = self._fill(run)
        except Exception as failure:
            code, error = 0, describe(failure)
            say(f"longvid: error: {run.source}: {error}")
            self.failed.append(str(run.path))
        if self.arguments.json:
            line = {"run": str(run.path), "line": run.number, "complete": not code and error is None, "error": error}
            print(json.dumps(line, ensure_ascii=False), flush=True)
        return code

    def _fill(self, run: PlannedRun) -> int:
        say(f"{run.path}:", quiet=self.quiet)
        if not (run.path / NAME).exists():
            job = self._job(run)
            job.begin(open_image(run.settings.image))
            return job.make()
        begun, different = Run(run.path), self.arguments.allow_different
        return work(
            begun,
            lambda watcher: begun.resume(self.pipe, allow_different=different, watcher=watcher),
            self.interrupts,
            self.shown,
        )


def _on(settings: GenerateSettings, device: str | None) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(settings), "device": device})


def _is_finished(run: PlannedRun, options: RunOptions, allow_different: bool) -> bool:
    if not (run.path / NAME).exists():
        return False
    made = Run(run.path)
    different = _differences(made.manifest, run, options)
    if not allow_different:
        model, before = model_values(run.settings), made.manifest.model
        different += [f"model {key}" for key in ("name", "dtype", "scheduler") if before[key] != model[key]]
    if different:
        raise ValueError(
            f"{run.source}: {run.path} was begun with another {', '.join(different)}; take another --run-dir"
        )
    return made.complete


def _differences(manifest: Manifest, run: PlannedRun, options: RunOptions) -> list[str]:
    """What a line asks for otherwise than its run was begun; that the run was made longer since is none."""
    before, asked = dict(manifest.request), run.settings.call_arguments()
    if manifest.num_frames > asked.get("num_frames", manifest.num_frames):
        for name in ("num_frames", "frames_per_prompt"):
            asked.pop(name, None)
        asked["prompt"], before["prompt"] = _first(asked["prompt"]), _first(before.get("prompt"))
    different = [name for name, value in asked.items() if before.get(name) != value]
    if run.seeded and manifest.seed != run.settings.seed:
        different.append("seed")
    kept, wanted = manifest.options, options
    pairs = (
        {**kept.encoding(), "chunk_frames": kept.chunk_frames},
        {**wanted.encoding(), "chunk_frames": wanted.chunk_frames},
    )
    return different + [name for name in pairs[0] if pairs[0][name] != pairs[1][name]]


def _first(prompt: Any) -> Any:
    return prompt[0] if isinstance(prompt, list) else prompt
