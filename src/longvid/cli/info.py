"""`longvid info`: the machine and the installed versions, to paste into a bug report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import longvid
from longvid.cli.parser import Parser

PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "huggingface_hub", "safetensors", "einops", "omegaconf",
    "imageio", "av", "numpy", "pillow",
)  # fmt: skip
VARIABLES = (
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "LONGVID_DEBUG",
)  # fmt: skip


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid info`."""
    parser = Parser(prog=prog, description=f"longvid info: {summary}.")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the report."""
    parser.check_unknown(rest)
    if rest:
        parser.error(f"expected no further words; got {rest[0]!r}")
    report = environment()
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    for title, entries in report.items():
        print(title if entries else f"{title}: none")
        for name, value in entries.items():
            print(f"  {name:<22} {_text(value)}".rstrip())
    return 0


def package_versions() -> dict[str, str | None]:
    """Installed version of Python and of every package that can change a result; None where it is missing."""
    versions: dict[str, str | None] = {"longvid": longvid.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def environment() -> dict[str, Any]:
    """The whole report, by section."""
    from longvid.cli.models import bundled_models

    return {
        "versions": package_versions(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory": _memory(),
            "python": sys.executable,
            "longvid": str(Path(longvid.__file__).parent),
        },
        "torch": _torch(),
        "video": _video(),
        "folders": _folders(),
        "environment variables": {name: os.environ.get(name) for name in VARIABLES},
        "bundled models": {model["name"]: f"{model['parameters']:,} parameters" for model in bundled_models()},
    }


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken install is what this report is for
        return {"import": f"{type(error).__name__}: {error}"}
    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}, "
               f"{torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB"
               for index in range(torch.cuda.device_count())]  # fmt: skip
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "cuda": torch.version.cuda,
        "devices": [*devices, "cpu"],
        "threads": torch.get_num_threads(),
        "bfloat16 on cuda": torch.cuda.is_bf16_supported() if torch.cuda.is_available() else None,
    }


def _video() -> dict[str, Any]:
    try:
        import av
    except Exception as error:
        return {"import": f"{type(error).__name__}: {error}"}
    wanted = ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "gif", "png")
    return {
        "ffmpeg": av.ffmpeg_version_info if hasattr(av, "ffmpeg_version_info") else None,
        "encoders": [name for name in wanted if _has_encoder(name)],
    }


def _has_encoder(name: str) -> bool:
    import av

    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True


def _folders() -> dict[str, Any]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    return {"model cache": str(cache), "model cache exists": cache.is_dir(), "offline": bool(constants.HF_HUB_OFFLINE)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> str | None:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)
