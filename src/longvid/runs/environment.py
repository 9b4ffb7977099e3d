"""What else the bits of a video depend on: library versions, the device, the number of threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("longvid", "torch", "diffusers", "transformers", "numpy", "av")


def environment(pipe: Any) -> dict[str, str]:
    """Everything besides model and request that can change a bit of a video, by name."""
    device = torch.device(pipe.device)
    cuda = device.type == "cuda"
    optimization = getattr(pipe, "optimization", None)
    level = None if optimization is None else optimization.level
    layout = ", channels last" if optimization is not None and optimization.channels_last else ""
    attention = getattr(pipe, "attention_backend", None)
    return {
        **{name: _version(name) for name in PACKAGES},
        "device": f"{device.type} {torch.cuda.get_device_name(device)}" if cuda else device.type,
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        **({} if level in (None, "exact") else {"optimization": level + layout}),
        **({} if attention in (None, "native") else {"attention": attention}),
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed, each as text: `"torch 2.6.0 -> 2.7.1"`."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} {before.get(name, 'unknown')} -> {now.get(name, 'unknown')}" for name in names]


def _version(name: str) -> str:
    if name == "longvid":
        from longvid import __version__

        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
