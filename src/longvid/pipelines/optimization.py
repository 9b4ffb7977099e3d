"""What `pipe.optimize` does: the speed that costs no bit, compiled networks, CUDA graphs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from longvid.modules.attention import install_lean_attention

LEVELS = ("exact", "fast", "max")
STEP_NETWORKS = ("unet", "mask_network", "cam", "mapping_network", "controlnet")  # what runs at every step
_COMPILERS = ("c++", "g++", "clang++", "cl")

Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Optimization:
    """What was done to a pipeline, and what was left out and why.

    Attributes:
        level: "exact", "fast" or "max".
        done: What is in force, one sentence each.
        left_out: What the level asks for and could not be done here.
        uses_cuda_graphs: Whether the networks of a step are replayed.
    """

    level: str
    done: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    uses_cuda_graphs: bool = False

    def __str__(self) -> str:
        lines = [f"optimized: {self.level}", *self.done, *(f"left out: {reason}" for reason in self.left_out)]
        return "\n  ".join(lines)


def optimized(pipe: Any, level: str, *, backend: str = "inductor", fullgraph: bool = False) -> Optimization:
    """Bring the networks of a pipeline to a level of speed, from whatever level they were at; see `optimize`.

    Raises:
        ValueError: for a level that does not exist.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}")
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    networks = {name: parts[name] for name in STEP_NETWORKS if name in parts}
    for network in networks.values():
        network._compiled_call_impl = None  # what an earlier level compiled; torch has no other way back
    lean = sum(install_lean_attention(part) for part in parts.values())
    done, left_out = [f"attention without a look at signatures ({lean} layers of diffusers changed now)"], []
    if level == "exact":
        return Optimization(level, tuple(done))

    on_cuda = torch.device(pipe.device).type == "cuda"
    graphs = level == "max" and on_cuda
    if level == "max" and not on_cuda:
        left_out.append(f"CUDA graphs: the pipeline is on {torch.device(pipe.device).type}")
    missing = _missing(backend, on_cuda)
    compiled = []
    for name, network in networks.items():
        if missing is None and hasattr(network, "_hf_hook"):
            left_out.append(f"compiling {name}: it is offloaded")
        elif missing is None:
            mode = {"mode": "reduce-overhead"} if graphs else {}
            network.compile(backend=backend, dynamic=False, fullgraph=fullgraph, **mode)
            compiled.append(name)
    if missing is not None:
        left_out.append(f"compiling {', '.join(networks)}: {missing}")
    if graphs and not compiled:
        left_out.append("CUDA graphs: nothing is compiled")
    if compiled:
        how = "compiled, and replayed as CUDA graphs" if graphs else "compiled"
        done.append(f"{', '.join(compiled)} {how}; the first steps at every new size wait for the compiler")
    return Optimization(level, tuple(done), tuple(left_out), graphs and bool(compiled))


def replayed(predict: Predict) -> Predict:
    """Make predictions outlive the next replay of CUDA graphs, which would write over them.

    Every evaluation is announced as a step of its own, and its result copied. Values stay as they are.
    """

    def stepped(sample: Tensor, timestep: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return predict(sample, timestep).clone()

    return stepped


def _missing(backend: str, on_cuda: bool) -> str | None:
    """Say what the compiler lacks on this machine, if anything."""
    if backend != "inductor":
        return None
    if on_cuda:
        from torch.utils._triton import has_triton

        return None if has_triton() else "triton is not installed, or does not know this GPU"
    chosen = os.environ.get("CXX")
    found = shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, _COMPILERS)), None)
    return None if found else "there is no C++ compiler"
