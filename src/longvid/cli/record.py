"""The record beside a video: everything needed to make it again, and how the run went."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longvid.cli.info import package_versions

FORMAT = 1


@dataclass
class Record:
    """What `demo.json` holds; `save` replaces the file in one step, so that it is whole at any time."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    def save(self, **changes: Any) -> None:
        """Set top-level values and write the file."""
        self.values.update(changes)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self.values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


def start_record(path: Path, command: str, settings: Any, pipe: Any, arguments: Mapping[str, Any]) -> Record:
    """A record with all that is known before the first frame.

    Args:
        path: The file it goes to.
        command: The command line.
        settings: The dataclass of the command's settings, with a list `prompt`, `seed`, `model` and `dtype`.
        pipe: The loaded pipeline.
        arguments: Of its call, defaults filled in.
    """
    import torch

    device = torch.device(pipe.device)
    return Record(path, {
        "format": FORMAT,
        "status": "running",
        "command": command,
        "prompts": list(settings.prompt),
        "seed": settings.seed,
        "model": {
            "name": settings.model,
            "class": type(pipe).__name__,
            "fingerprint": pipe.fingerprint(),
        },
        "scheduler": {"class": type(pipe.scheduler).__name__, "config": plain(dict(pipe.scheduler.config))},
        "arguments": plain(arguments),
        "versions": package_versions(),
        "device": {
            "type": device.type,
            "name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "dtype": settings.dtype,
            "threads": torch.get_num_threads(),
            "processes": pipe.processes.count,
        },
        "settings": asdict(settings),
    })  # fmt: skip


def plain(value: Any) -> Any:
    """`value` in the types that JSON knows; anything else by its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return str(value)


def describe_output(path: Path, *, num_frames: int, fps: float) -> dict[str, Any]:
    """What a finished video is, read from the file itself where it has frames."""
    described = {"path": str(path), "frames": num_frames, "fps": fps, "width": None, "height": None,
                 "codec": None, "pixel_format": None, "bytes": 0}  # fmt: skip
    files = sorted(path.glob("*.png")) if path.is_dir() else [path]
    if not num_frames or not files or not files[0].exists():
        return described
    import av

    with av.open(str(files[0])) as container:
        stream: Any = container.streams.video[0]
        described |= {
            "width": stream.width,
            "height": stream.height,
            "codec": stream.codec_context.name,
            "pixel_format": stream.codec_context.pix_fmt,
            "bytes": sum(file.stat().st_size for file in files),
        }
    return described
