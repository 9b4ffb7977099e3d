"""One job by the processes of `accelerate launch`: the main one writes and talks, the others take part."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from longvid.cli.interrupts import Interrupts
from longvid.cli.job import Job, report
from longvid.cli.parser import say
from longvid.pipelines.distribution import process_state
from longvid.samplers.processes import LaunchedProcesses, Processes


def make_together(
    prepare: Callable[[], tuple[Any, Any, Any, Any]],
    job_type: type[Job],
    arguments: argparse.Namespace,
    *,
    device: str | None,
) -> int:
    """Make one video in all processes; returns the exit code of this one.

    Args:
        prepare: Is called in the main process: settings, paths, first frame and earlier record.
        job_type: What is made.
        arguments: The command line.
        device: The device that it names, if any.
    """
    with Interrupts() as interrupts:

        def work(processes: LaunchedProcesses) -> int:
            settings, paths, image, earlier = processes.from_main(prepare)
            how = {"command": arguments.command, "quiet": arguments.quiet, "debug": arguments.debug}
            spread = _spread(processes, quiet=arguments.quiet)
            job = job_type(settings, paths, interrupts, **how, on_load=spread)
            code = (_write if processes.is_main else _take_part)(job, image, earlier)
            if processes.is_main and not code:
                report(job, arguments)
            return code

        return together(work, device=device, debug=arguments.debug)


def together(work: Callable[[LaunchedProcesses], int], *, device: str | None, debug: bool) -> int:
    """Do the same work in all processes, of which the main one talks; returns the exit code of this one.

    Args:
        work: What every process does; an exit code other than 0 makes the others fail, too.
        device: The device that the command line names, if any.
        debug: Whether all processes talk and raise what fails in them.
    """
    state = process_state(device)
    processes = LaunchedProcesses(state.device)
    with _heard(processes.is_main or debug):
        try:
            with processes.session():
                if code := work(processes):
                    raise _Stopped(code)
        except _Stopped as stop:
            return stop.code
        except KeyboardInterrupt as stop:
            return getattr(stop, "exit_code", 130)
        except Exception:
            if processes.is_main or debug:
                raise
            return 1  # the main process says why
    state.destroy_process_group()
    return 0


class _Stopped(Exception):
    """The main process was stopped by a signal, and has said so."""

    def __init__(self, code: int):
        super().__init__(f"stopped with exit code {code}")
        self.code = code


def _spread(processes: Processes, *, quiet: bool) -> Callable[[Any], None]:
    def spread(pipe: Any) -> None:
        say(str(pipe.distribute(processes)), quiet=quiet)

    return spread


def _write(job: Job, image: Any, earlier: dict[str, Any] | None) -> int:
    job.load(image, earlier)
    return job.make()


def _take_part(job: Job, image: Any, _earlier: dict[str, Any] | None) -> int:
    job.load_pipe()
    for _ in job.pipe.stream(**job.call_arguments(image)):
        pass
    return 0


@contextmanager
def _heard(aloud: bool) -> Iterator[None]:
    """Drop what is printed, unless `aloud`: all processes would print the same."""
    if aloud:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
