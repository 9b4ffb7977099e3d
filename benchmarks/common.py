"""What every benchmark shares: its arguments, statistics, and the report with the machine it was made on."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

METHODS = ("art-v", "harivo", "streaming-t2v", "enhancer")
SCALES = ("paper", "tiny", "toy")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROOT = Path(__file__).resolve().parent.parent


def parser(description: str | None, *, repeats: int = 5, warmup: int = 1) -> argparse.ArgumentParser:
    """Give a parser with what all benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    made.add_argument("--models", choices=SCALES, help="sizes of the networks; paper with CUDA, tiny without")
    made.add_argument("--tiny", dest="models", action="store_const", const="tiny", help="short for --models tiny")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--repeats", type=int, default=repeats, help="measurements that count")
    made.add_argument("--warmup", type=int, default=warmup, help="runs before them that do not count")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", type=Path, help="file that gets everything measured")
    return made


def settled(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in the sizes of the networks that suit the device."""
    args.models = args.models or ("paper" if args.device.startswith("cuda") else "tiny")
    return args


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, quartiles, extremes and number of some measurements."""
    values = sorted(values)
    if not values:
        raise ValueError("expected at least one measurement; got none")
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median, "q1": low, "q3": high, "min": values[0], "max": values[-1], "n": len(values)}


def measured(work: Callable[[], Any], clock: Callable[[], float], *, repeats: int, warmup: int = 1) -> list[float]:
    """Times of some runs, after others that do not count."""
    times = []
    for run in range(warmup + repeats):
        begin = clock()
        work()
        if run >= warmup:
            times.append(clock() - begin)
    return times


class Report:
    """Rows of figures, printed as a table and written as JSON together with the machine and the settings."""

    def __init__(self, name: str, args: argparse.Namespace):
        self.name, self.path, self.rows, self.notes = name, args.json, [], []
        self.settings = {key: _plain(value) for key, value in vars(args).items() if key != "json"}
        self.machine = machine(args.device)

    def add(self, **row: Any) -> None:
        """Add a row; values are plain ones or what `spread` gives. Each is shown on stderr as soon as it is there."""
        self.rows.append(row)
        print(" ", ", ".join(f"{key} {shown(value)}" for key, value in row.items()), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Add a sentence for the reader, such as what could not be measured and why."""
        self.notes.append(text)
        print(f"  note: {text}", file=sys.stderr, flush=True)

    def finish(self) -> dict[str, Any]:
        """Print the table, write the file, and give what is in it."""
        content = {
            "benchmark": self.name,
            "machine": {**self.machine, "load average after": _load()},
            "settings": self.settings,
            "rows": self.rows,
            "notes": self.notes,
        }
        print(f"# {self.name}: {self.machine['device']}, torch {self.machine['torch']}, {self.machine['commit'][:12]}")
        print(table(self.rows))
        for note in self.notes:
            print(f"\n{note}")
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(content, indent=1) + "\n")
        return content


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table; a spread is shown as `median (first quartile to third)`."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, ["---"] * len(columns)]
    cells += [[shown(row[column]) if column in row else "" for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def shown(value: Any) -> str:
    """A value as text, numbers to three digits."""
    if isinstance(value, dict):
        if value["n"] == 1:
            return shown(value["median"])
        return f"{shown(value['median'])} ({shown(value['q1'])} to {shown(value['q3'])})"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def machine(device: str) -> dict[str, str]:
    """The device, the versions, the commit and how busy the machine is."""
    from longvid.runs.environment import environment

    return {
        **environment(SimpleNamespace(device=device)),
        "python": sys.version.split()[0],
        "cuda": str(torch.version.cuda) if device.startswith("cuda") else "none",
        "commit": commit(),
        "load average before": _load(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def commit() -> str:
    """The commit of this checkout, with "+" behind it if files of the package or the benchmarks were changed."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "src", "benchmarks") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def picture_size(text: str) -> tuple[int, int]:
    """Height and width from "256" or "1280x720" (width first, as videos are named), for argparse."""
    width, _, height = text.partition("x")
    return int(height or width), int(width)


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
