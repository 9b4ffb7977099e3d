"""The file of single measurements: one line of JSON each, appended when it is there, never measured twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longvid.reproduce.experiment import Measured

FORMAT = 1
Key = tuple[str, int, int]
"""Variant, prompt, seed."""


class MeasurementFile:
    """Measurements of one experiment under one set of settings; its first line holds the settings.

    A line that a killed process left unfinished is cut off.

    Args:
        path: The file; it is made when the first measurement comes.
        experiment: Name of the experiment.
        settings: What decides the numbers. More prompts and seeds may be added under the same settings.
        notes: What is written beside them and not compared, such as versions.

    Raises:
        ValueError: if the file is no file of measurements, or one of another experiment or other settings.
    """

    def __init__(
        self, path: Path, experiment: str, settings: Mapping[str, Any], notes: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.header = {
            "format": FORMAT,
            "experiment": experiment,
            "settings": dict(settings),
            "notes": dict(notes or {}),
        }
        self.measured: dict[Key, Measured] = {}
        lines = read_lines(path)
        if lines:
            self._compare(lines[0])
            self.header = lines[0]
            for line in lines[1:]:
                key = (line["variant"], line["prompt"], line["seed"])
                self.measured.setdefault(key, Measured(line["values"], line.get("curves", {})))

    def append(self, variant: str, seed: int, prompts: Sequence[int], measured: Sequence[Measured]) -> None:
        """Write the measurements of a batch down, in one piece."""
        empty = not self.path.exists() or not self.path.stat().st_size
        lines = [self.header] if empty else []
        for prompt, one in zip(prompts, measured, strict=True):
            self.measured[variant, prompt, seed] = one
            curves = {"curves": {name: list(curve) for name, curve in one.curves.items()}} if one.curves else {}
            lines.append({"variant": variant, "prompt": prompt, "seed": seed, "values": dict(one.values), **curves})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _compare(self, header: Mapping[str, Any]) -> None:
        if header.get("format") != FORMAT or header.get("experiment") != self.header["experiment"]:
            wanted = self.header["experiment"]
            raise ValueError(
                f"{self.path} does not hold measurements of {wanted} in format {FORMAT}: choose another --output"
            )
        now = json.loads(json.dumps(self.header["settings"]))
        for name in {**header["settings"], **now}:
            before, after = header["settings"].get(name), now.get(name)
            if before != after:
                raise ValueError(
                    f"{self.path} holds measurements with {name} = {before}; got {after}: go on with the same settings,"
                    " remove the file, or choose another --output"
                )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; what follows the last line end is cut off from the file itself.

    Raises:
        ValueError: if a whole line is not JSON.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.decode("utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: a line is not valid JSON ({error})") from error
