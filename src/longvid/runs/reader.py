"""Values of a JSON file that may have been edited by anybody: each is taken by name, with its kind and its limits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

TEXT = 100_000
MAX_DEPTH = 8


class Reader:
    """Takes values out of a JSON object; `done` refuses what nobody took.

    Args:
        values: The object.
        where: What the messages call it.

    Raises:
        ValueError: from every method, for a value that is missing, of another kind or outside its limits.
    """

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise ValueError(f"{where} must be an object; got {_short(values)}")
        self._values, self._where = dict(values), where

    def take(self, name: str) -> Any:
        """A value of any kind."""
        if name not in self._values:
            raise ValueError(f"{self._where} lacks {name!r}")
        return self._values.pop(name)

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self.take(name)
        fine = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not fine or not low <= value <= high or not math.isfinite(value):
            raise self.error(name, f"a number from {low} to {high}", value)
        return value

    def text(self, name: str, pattern: str | None = None) -> str:
        """Text, matching a pattern as a whole."""
        value = self.take(name)
        if not isinstance(value, str) or len(value) > TEXT or (pattern and not re.fullmatch(pattern, value, re.ASCII)):
            raise self.error(name, "text" if pattern is None else f"text like {pattern}", value)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.error(name, "true or false", value)
        return value

    def texts(self, name: str) -> dict[str, str]:
        """An object that maps names to texts."""
        value = self.take(name)
        fine = isinstance(value, dict) and all(
            isinstance(entry, str) and len(entry) <= TEXT for entry in value.values()
        )
        if not fine:
            raise self.error(name, "an object of texts", value)
        return value

    def plain(self, name: str) -> dict[str, Any]:
        """An object of plain values, not deeply nested."""
        value = self.take(name)
        if not isinstance(value, dict) or not _is_shallow(value, MAX_DEPTH):
            raise self.error(name, "an object of plain values", value)
        return value

    def each(self, name: str, read: Callable[[Any, str], Any]) -> list[Any]:
        """A list, every entry read by `read(entry, where)`."""
        value = self.take(name)
        if not isinstance(value, list):
            raise self.error(name, "a list", value)
        return [read(entry, f"{name}[{index}]") for index, entry in enumerate(value)]

    def optional(self, name: str, read: Callable[..., Any], *limits: Any) -> Any:
        """None, or what one of the other methods gives: `optional("crf", reader.number, 0, 63)`."""
        if name in self._values and self._values[name] is None:
            return self.take(name)
        return read(name, *limits)

    def done(self) -> None:
        """Refuse unknown names."""
        if self._values:
            raise ValueError(f"{self._where} has unknown entries: {', '.join(map(_short, sorted(self._values)))}")

    def error(self, name: str, expected: str, value: Any) -> ValueError:
        """What to raise for a value that is not what was expected."""
        return ValueError(f"{self._where}: {name!r} must be {expected}; got {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_shallow(value: Any, depth: int) -> bool:
    if isinstance(value, (dict, list)):
        entries = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_shallow(entry, depth - 1) for entry in entries)
    return not isinstance(value, float) or math.isfinite(value)
