"""What `pipe.optimize` does: the speed that costs no bit, compiled networks, CUDA graphs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

from longvid.modules.attention import (
    BackendAttnProcessor,
    choosable_layers,
    install_lean_attention,
    try_attention_backend,
)
from longvid.modules.temporal_conv import flatten_temporal_convs

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
        channels_last: Whether convolutions have the channels of their weights last.
    """

    level: str
    done: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    uses_cuda_graphs: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        lines = [f"optimized: {self.level}", *self.done, *(f"left out: {reason}" for reason in self.left_out)]
        return "\n  ".join(lines)


def optimized(
    pipe: Any, level: str, *, backend: str = "inductor", fullgraph: bool = False, channels_last: bool = False
) -> Optimization:
    """Bring the networks of a pipeline to a level of speed, from whatever level they were at; see `optimize`.

    Raises:
        ValueError: for a level that does not exist.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}")
    if level == "exact" and channels_last:
        raise ValueError("channels_last=True changes rounding, and level 'exact' changes no bit: take 'fast' or 'max'")
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    networks = {name: parts[name] for name in STEP_NETWORKS if name in parts}
    for network in networks.values():
        network._compiled_call_impl = None  # what an earlier level compiled; torch has no other way back
    lean = sum(install_lean_attention(part) for part in parts.values())
    done, left_out = [f"attention without a look at signatures ({lean} layers of diffusers changed now)"], []
    kinds = [lay_out(part, channels_last) for name, part in parts.items() if name in networks or name == "vae"]
    if channels_last:
        done.append(f"weights of {sum(kinds)} convolutions with the channels last")
    if flat := sum(flatten_temporal_convs(network, level != "exact") for network in networks.values()):
        done.append(f"{flat} convolutions over time in their 2-D form")
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
    return Optimization(level, tuple(done), tuple(left_out), graphs and bool(compiled), channels_last)


def lay_out(network: nn.Module, channels_last: bool) -> int:
    """Lay the weights of a network's 2-D and 3-D convolutions out with the channels last, or as usual; returns how many.

    Layer by layer: `to(memory_format=...)` refuses a network that holds weights of other ranks.
    """
    formats = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    layers: list[Any] = [module for module in network.modules() if type(module) in formats]
    for layer in layers:
        chosen = formats[type(layer)] if channels_last else torch.contiguous_format
        layer.weight.data = layer.weight.data.contiguous(memory_format=chosen)
    return len(layers)


def attention_by(pipe: Any, backend: str | None) -> int:
    """Let the networks of a step compute their attention by a backend; see `set_attention_backend`.

    Raises:
        ValueError: for a backend that does not exist, cannot compute here, or reaches no layer.
    """
    networks = [getattr(pipe, name, None) for name in STEP_NETWORKS]
    layers = [layer for network in networks if network is not None for layer in choosable_layers(network)]
    if backend is not None:
        _check_attention(layers, backend)
    for layer in layers:
        layer.set_processor(AttnProcessor2_0() if backend is None else BackendAttnProcessor(backend))
    return 0 if backend is None else len(layers)


def _check_attention(layers: list[Any], backend: str) -> None:
    known = [name.value for name in AttentionBackendName]
    if backend not in known:
        raise ValueError(f"the attention backend must be one of {', '.join(known)}; got {backend!r}")
    if not layers:
        raise ValueError(f"no attention layer has diffusers' stock processor, so none can be computed by {backend!r}")
    try:
        with torch.no_grad(), attention_backend(backend):  # which checks what it needs, and goes back afterwards
            for layer in {layer.to_q.weight.shape[0] // layer.heads: layer for layer in layers}.values():
                try_attention_backend(layer, backend)
    except Exception as error:  # every backend has its own kinds
        raise ValueError(f"the attention backend {backend!r} cannot be used here: {error}") from error


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
