"""Runs an experiment: measures what is not measured yet, then writes page, figure and numbers."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longvid.reproduce.experiment import Bench, Experiment, Setup, Size, Variant
from longvid.reproduce.records import MeasurementFile


def reproduce(experiment: Experiment, output: str | Path, setup: Setup) -> Path:
    """Run an experiment and return its page, `output/NAME.md`.

    Beside it lie `NAME.jsonl`, every single measurement, appended as they come; `NAME.json`, the figures of the table;
    and `NAME.svg`. Killed at any moment and called again, it goes on after the last batch that was measured; with more
    prompts or seeds it measures what is missing.

    Raises:
        ValueError: if the folder cannot be written, or holds measurements with other settings.
        ImportError: if the library that draws the figure is missing.
    """
    from longvid.reproduce.figure import check_figures
    from longvid.reproduce.page import write_page

    check_figures()
    folder = writable_folder(output)
    bench = experiment.bench(setup)
    file = MeasurementFile(folder / f"{experiment.name}.jsonl", experiment.name, bench.settings, _notes(setup))
    measure_missing(experiment, setup, bench, file)
    return write_page(experiment, setup.size, file, folder)


def measure_missing(experiment: Experiment, setup: Setup, bench: Bench, file: MeasurementFile) -> None:
    """Measure what a file lacks, batch by batch, and append each to it."""
    missing = list(missing_batches(experiment, setup.size, file))
    total, done, started = sum(len(prompts) for _, _, prompts in missing), 0, time.monotonic()
    setup.say(f"{experiment.name}: {total} measurements to make" if total else f"{experiment.name}: all is measured")
    for variant, seed, prompts in missing:
        file.append(variant.name, seed, prompts, bench.measure(variant, prompts, seed))
        done += len(prompts)
        left = (time.monotonic() - started) / done * (total - done)
        where = f"{variant.label}, seed {seed}, prompts {prompts[0]} to {prompts[-1]}"
        setup.say(f"{done}/{total}  {where}  about {left:.0f} s left")


def writable_folder(output: str | Path) -> Path:
    """The folder, made if need be.

    Raises:
        ValueError: if nothing can be written there.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {error.strerror}") from error
    return folder


def missing_batches(
    experiment: Experiment, size: Size, file: MeasurementFile
) -> Iterator[tuple[Variant, int, list[int]]]:
    """What is to be measured: variant, seed and a batch of prompts; all variants under one seed before the next seed."""
    for seed in range(size.num_seeds):
        for variant in experiment.variants:
            if seed not in experiment.seeds(variant, size):
                continue
            prompts = [i for i in range(size.num_prompts) if (variant.name, i, seed) not in file.measured]
            for start in range(0, len(prompts), size.batch_size):
                yield variant, seed, prompts[start : start + size.batch_size]


def _notes(setup: Setup) -> dict[str, Any]:
    from importlib.metadata import version

    from longvid import __version__

    return {
        "longvid": __version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        "device": setup.device,
    }
