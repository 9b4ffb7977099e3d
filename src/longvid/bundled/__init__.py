"""The tiny trained models that ship with longvid: `longvid/<folder>` names the pipeline folder of that name here.

Each is a normal diffusers pipeline folder, with one addition: a component that several models share is stored once,
and the others name it in `shared.json`, e.g. `{"vae": "../base-tiny/vae"}`. Where a component is another one with parts
added, such as temporal layers in an image UNet, only what was added is stored: `{"unet": {"adds_to": "../base-tiny/unet"}}`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PREFIX = "longvid/"
INDEX = "model_index.json"
SHARED = "shared.json"
ADDS_TO = "adds_to"
WEIGHTS = ".safetensors"


def bundled_models() -> dict[str, Path]:
    """The models that ship with longvid: their names (`"longvid/art-v-tiny"`) and their folders."""
    return {f"{PREFIX}{index.parent.name}": index.parent for index in sorted(ROOT.glob(f"*/{INDEX}"))}


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        ValueError: if the file is not JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also a UnicodeDecodeError
        raise ValueError(f"{path} is damaged: it is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: expected a JSON object, got a {type(content).__name__}")
    return content


def shared_components(folder: str | os.PathLike) -> dict[str, Path]:
    """Where the components of a pipeline folder are that the folder does not hold itself.

    Raises:
        ValueError: if `shared.json` is damaged, or names something other than a folder beside this one.
    """
    return {name: place for name, (place, whole) in _shared(folder).items() if whole}


def extended_components(folder: str | os.PathLike) -> dict[str, Path]:
    """Where the other tensors of those components are of which the folder holds only what was added.

    Raises:
        ValueError: as `shared_components`.
    """
    return {name: place for name, (place, whole) in _shared(folder).items() if not whole}


def _shared(folder: str | os.PathLike) -> dict[str, tuple[Path, bool]]:
    """The folders that `shared.json` names, and whether each is the whole component."""
    folder = Path(folder).resolve()
    if not (folder / SHARED).is_file():
        return {}
    shared = {}
    for component, entry in read_json(folder / SHARED).items():
        relative = str(entry.get(ADDS_TO) if isinstance(entry, dict) else entry)
        target = (folder / relative).resolve()
        if not (target.is_dir() and target.is_relative_to(folder.parent)):
            raise ValueError(
                f"{folder / SHARED}: {component!r} must be a folder below {folder.parent}; got {relative!r}"
            )
        shared[component] = (target, not isinstance(entry, dict))
    return shared


def component_folders(folder: str | os.PathLike) -> dict[str, Path]:
    """The folder of each component that `model_index.json` names, shared or not, except components that are None.

    Raises:
        ValueError: if `model_index.json` or `shared.json` is damaged.
    """
    folder = Path(folder)
    shared = shared_components(folder)
    entries = read_json(folder / INDEX).items()
    named = [name for name, value in entries if isinstance(value, list) and value[:1] != [None] and name[0] != "_"]
    return {name: folder / name for name in named} | {name: shared[name] for name in named if name in shared}


@contextmanager
def complete_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """A pipeline folder that holds every component: `folder` itself, or links to all its parts if it shares some.

    Raises:
        ValueError: if `shared.json` or weights that are to be joined are damaged, or if it names something other than a
            folder beside this one.
    """
    folder = Path(folder)
    shared, extended = shared_components(folder), extended_components(folder)
    if not shared and not extended:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="longvid-", ignore_cleanup_errors=True) as temporary:
        for name, part in ({part.name: part for part in folder.resolve().iterdir()} | shared).items():
            if name in extended:
                _merge(extended[name], part, Path(temporary, name))
            else:
                _link(part, Path(temporary, name))
        yield Path(temporary)


def _merge(base: Path, added: Path, target: Path) -> None:
    """Make a component folder of what was added, with the tensors of both."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    target.mkdir()
    for path in added.iterdir():
        if path.suffix == WEIGHTS:
            tensors = {}
            for part in (base / path.name, path):
                try:
                    tensors |= load_file(part)
                except (SafetensorError, OSError) as error:
                    raise ValueError(f"{part} is damaged: {error}") from error
            save_file(tensors, target / path.name, {"format": "pt"})
        else:
            _link(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:  # Windows without the right to make links
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
