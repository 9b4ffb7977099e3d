"""Settings from a file and the command line; a dataclass is the schema, an unknown key names the nearest known one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from longvid.cli.parser import nearest

Schema = TypeVar("Schema")
_MEANINGFUL = {"${": "\ue0d0\ue0d1{", "???": "\ue0d0\ue0d2"}
"""What OmegaConf takes for its own in a text, and what stands for it in texts that mean themselves: private characters
without a meaning to YAML either."""
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def split_overrides(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part the words of a command line into plain ones and `key=value` (or `group.key=value`) overrides."""
    plain: list[str] = []
    overrides: list[str] = []
    for word in words:
        (overrides if _OVERRIDE.match(word) else plain).append(word)
    return plain, overrides


def merge_settings(
    schema: type[Schema],
    *,
    base: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Schema:
    """The settings of a run; later sources win: schema defaults, `base`, the YAML `file`, `overrides`, `options`.

    Texts mean themselves, except in the file: there `${key}` is the value of another key, as OmegaConf reads it.

    Args:
        schema: A dataclass, with dataclasses for its groups.
        base: Nested values to start from.
        file: A YAML file of nested values.
        overrides: `group.key=value` words; the value is read as YAML.
        options: Values by dotted key, from the options of a command line.

    Raises:
        ValueError: for a key that the schema lacks, a value of the wrong type, a key set by an override and by an
            option, a reference that leads nowhere, or a file that cannot be read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides, options = list(overrides), dict(options or {})
    merged = OmegaConf.structured(schema)
    for source, values in _sources(base, file, overrides):
        _check_keys(schema, values, source)
        try:
            merged = OmegaConf.merge(merged, values)
        except OmegaConfBaseException as error:
            raise ValueError(f"{source}: {_explain(error)}") from error
    given = {word.split("=", 1)[0] for word in overrides}
    for key, value in options.items():
        if key in given:
            raise ValueError(f"{key} is set twice: as an option and by {key}=...")
        OmegaConf.update(merged, key, _literal(value))
    try:
        return _plain(OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:  # a reference can only stand in the file
        raise ValueError(f"{file}: {_explain(error)}") from error


def known_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted key of a schema, and whether any key may follow below it (a free dictionary)."""
    hints = get_type_hints(schema)
    for entry in fields(schema):
        kind = hints[entry.name]
        if is_dataclass(kind):
            yield from known_keys(kind, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{entry.name}", getattr(kind, "__origin__", None) is dict


def _sources(
    base: Mapping[str, Any] | None, file: str | Path | None, overrides: list[str]
) -> Iterator[tuple[str, Any]]:
    from omegaconf import OmegaConf

    if base is not None:
        yield "settings", OmegaConf.create(_literal(base))
    if file is not None:
        yield str(file), _read_yaml(Path(file))
    if overrides:
        try:
            yield "command line", OmegaConf.from_dotlist([_literal(word) for word in overrides])
        except Exception as error:  # whatever the YAML parser says about a value
            raise ValueError(f"cannot read {' '.join(overrides)!r}: {error}") from error


def _read_yaml(path: Path) -> Any:
    import yaml
    from omegaconf import DictConfig, OmegaConf

    try:
        values = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ValueError(f"config file {str(path)!r} does not exist") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read config file {str(path)!r}: {error}") from error
    if not isinstance(values, DictConfig):
        raise ValueError(f"config file {str(path)!r} must hold `key: value` lines at its top level")
    return values


def _check_keys(schema: type, values: Any, source: str) -> None:
    from omegaconf import OmegaConf

    known = dict(known_keys(schema))
    free = tuple(f"{key}." for key, is_free in known.items() if is_free)
    for key in _flatten(OmegaConf.to_container(values), known):
        if key not in known and not key.startswith(free):
            raise ValueError(f"{source}: unknown option {key!r}{nearest(key, known)}")


def _flatten(values: Any, known: Mapping[str, bool], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in known:
            yield from _flatten(value, known, f"{key}.")
        elif value is not None or key in known or not any(k.startswith(f"{key}.") for k in known):
            yield key


def _explain(error: Any) -> str:
    first = _plain(str(error)).splitlines()[0]
    return f"{error.full_key}: {first}" if getattr(error, "full_key", None) else first


def _literal(value: Any) -> Any:
    """`value` with texts that OmegaConf leaves as they are."""
    return _replaced(value, _MEANINGFUL)


def _plain(value: Any) -> Any:
    """What `_literal` was made of."""
    return _replaced(value, {stand_in: text for text, stand_in in _MEANINGFUL.items()})


def _replaced(value: Any, changes: Mapping[str, str]) -> Any:
    """`value` with changed texts in its lists, dictionaries and dataclasses, which are changed in place."""
    if isinstance(value, str):
        for old, new in changes.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(entry, changes) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(entry, changes) for entry in value)
    if is_dataclass(value):
        for entry in fields(value):
            setattr(value, entry.name, _replaced(getattr(value, entry.name), changes))
    return value
