"""The tiny trained models that ship with longvid: `longvid/<folder>` names the pipeline folder of that name here.

Each is a normal diffusers pipeline folder, with one addition: a component that several models share is stored once,
and the others name it in `shared.json`, e.g. `{"vae": "../base-tiny/vae"}`.
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
    folder = Path(folder).resolve()
    if not (folder / SHARED).is_file():
        return {}
    shared = {}
    for component, relative in read_json(folder / SHARED).items():
        target = (folder / str(relative)).resolve()
        if not (target.is_dir() and target.is_relative_to(folder.parent)):
            raise ValueError(
                f"{folder / SHARED}: {component!r} must be a folder below {folder.parent}; got {str(relative)!r}"
            )
        shared[component] = target
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
        ValueError: if `shared.json` is damaged, or names something other than a folder beside this one.
    """
    folder = Path(folder)
    shared = shared_components(folder)
    if not shared:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="longvid-", ignore_cleanup_errors=True) as temporary:
        for name, part in ({part.name: part for part in folder.resolve().iterdir()} | shared).items():
            _link(part, Path(temporary, name))
        yield Path(temporary)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:  # Windows without the right to make links
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
