"""What is wrong with the files of a model folder; asked only after loading it has failed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from longvid.bundled import component_folders


def find_damage(folder: Path, ignored: Collection[str] = ()) -> str | None:
    """Name the first damaged file of a pipeline folder, else the component folders that are missing, else None.

    Args:
        folder: The pipeline folder, whose `model_index.json` is sound.
        ignored: Components that were not read.
    """
    places = {name: place for name, place in component_folders(folder).items() if name not in ignored}
    for place in places.values():
        for path in sorted(place.glob("*.safetensors")) + sorted(place.glob("*.json")):
            if (damage := file_damage(path)) is not None:
                return f"{path} is damaged: {damage}"
    missing = [f"{name}/" for name, place in places.items() if not place.is_dir()]
    return f"{folder} has no {', '.join(missing)}, which its model_index.json names" if missing else None


def file_damage(path: Path) -> str | None:
    """What keeps a .safetensors or .json file from being read, or None; it reads no tensor, so it costs little."""
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(b"version https://git-lfs"):
            return "it is a Git LFS pointer, not the file itself (run `git lfs pull`)"
        if path.suffix == ".json":
            return _json_damage(start + file.read())
    return "; ".join(_safetensors_damage(path)) or None


def _json_damage(content: bytes) -> str | None:
    try:
        json.loads(content)
    except ValueError as error:
        return f"it is not valid JSON ({error})"
    return None


def _safetensors_damage(path: Path) -> Iterator[str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            yield f"it has {size} bytes, fewer than its header needs (truncated, or not a safetensors file)"
            return
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            yield "its header cannot be read (not a safetensors file, or overwritten)"
            return
    if 8 + length + end != size:
        yield f"its header promises {8 + length + end} bytes, but it has {size} (truncated or overwritten)"
