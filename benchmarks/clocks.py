"""Clocks and peak memory: what a run took, how much of it inside the networks, and what it needed."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CALLED_ALONE = ("adapter", "frame_encoder")  # parts of networks that pipelines call without calling the network
_STATUS = Path("/proc/self/status")
MIB = 2**20


def wall_clock(device: str) -> Callable[[], float]:
    """Give a clock of wall seconds that first waits until the device has done its work."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


class NetworkClock:
    """Adds up the time inside networks, while it is entered; only the outermost call counts.

    On a GPU the time is that between two events on the stream, so nothing waits for the device while it runs; read
    `seconds` after leaving. Without hooks left behind: they are there from entering to leaving only.

    Args:
        networks: By name; their direct parts count too when they are called alone, such as the decoder of a VAE.
        device: Where they are.
        clock: Clock of the CPU case; `time.process_time` is blind to other programs, but adds threads up.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], device: str, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.networks, self.clock, self.on_cuda = networks, clock, device.startswith("cuda")
        self.seconds: dict[str, float] = dict.fromkeys(networks, 0.0)
        self.calls: dict[str, int] = dict.fromkeys(networks, 0)
        self._depth, self._begin = 0, 0.0
        self._events: list[tuple[str, Any, Any]] = []
        self._undo: list[Callable[[], None]] = []

    @property
    def total(self) -> float:
        """Seconds inside all networks."""
        return sum(self.seconds.values())

    @property
    def at_work(self) -> bool:
        """Whether a network is being called."""
        return self._depth > 0

    def __enter__(self) -> Self:
        for name, network in self.networks.items():
            if getattr(network, "_compiled_call_impl", None) is not None:  # hooks would be compiled in
                self._wrap_compiled(name, network)
                parts = [part for child, part in network.named_children() if child in _CALLED_ALONE]
            else:
                parts = [network, *network.children()]
            for part in parts:
                hooks = (
                    part.register_forward_pre_hook(lambda *_, name=name: self._enter(name), prepend=True),
                    part.register_forward_hook(lambda *_, name=name: self._leave(name), always_call=True),
                )
                self._undo += [hook.remove for hook in hooks]
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()
        if self._events:
            torch.cuda.synchronize()
            for name, begin, end in self._events:
                self.seconds[name] += begin.elapsed_time(end) / 1000
            self._events.clear()

    def _wrap_compiled(self, name: str, network: nn.Module) -> None:
        compiled = network._compiled_call_impl

        def timed(*args: Any, **options: Any) -> Any:
            self._enter(name)
            try:
                return compiled(*args, **options)
            finally:
                self._leave(name)

        network._compiled_call_impl = timed
        self._undo.append(lambda: setattr(network, "_compiled_call_impl", compiled))

    def _enter(self, name: str) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self.calls[name] += 1
        if self.on_cuda:
            begin = torch.cuda.Event(enable_timing=True)
            begin.record()
            self._events.append((name, begin, torch.cuda.Event(enable_timing=True)))
        else:
            self._begin = self.clock()

    def _leave(self, name: str) -> None:
        self._depth -= 1
        if self._depth > 0:
            return
        if self.on_cuda:
            self._events[-1][2].record()
        else:
            self.seconds[name] += self.clock() - self._begin


class OperationCount(TorchDispatchMode):
    """Counts the operations of torch inside and outside of networks: what a GPU would start a kernel for, roughly.

    Views, and whatever makes no tensor with dimensions (timesteps, scales), do not count.

    Args:
        clock: Knows when a network is at work; entered before.
    """

    def __init__(self, clock: NetworkClock) -> None:
        super().__init__()
        self.clock, self.inside, self.outside = clock, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        if not func.is_view and any(value.ndim for value in made):
            if self.clock.at_work:
                self.inside += 1
            else:
                self.outside += 1
        return result


def networks_of(pipe: Any) -> dict[str, nn.Module]:
    """The components of a pipeline that compute, by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


class PeakMemory:
    """The most memory in use between entering and leaving, in MiB: `host` of this process, `device` if there is one.

    `outside_files` is the most of the host's memory that no file stands behind, so without latents that are mapped into
    memory from the disk; Linux keeps no mark of it, so it is read every few milliseconds. None where it cannot be told.

    Args:
        device: "cpu" or "cuda".
        collect: Whether garbage is collected before, which takes a moment.
        watch: Whether `outside_files` is read.
    """

    def __init__(self, device: str, *, collect: bool = True, watch: bool = False) -> None:
        self.on_cuda, self.collect = device.startswith("cuda"), collect
        self.host, self.device, self.outside_files = 0.0, None, None
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True) if watch and _status("RssAnon") else None

    def __enter__(self) -> Self:
        if self.collect:
            gc.collect()
        if self.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        reset_peak()
        if self._watcher is not None:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.host = peak_resident()
        if self._watcher is not None:
            self._over.set()
            self._watcher.join()
        if self.on_cuda:
            torch.cuda.synchronize()
            self.device = torch.cuda.max_memory_allocated() / MIB

    def _watch(self) -> None:
        self.outside_files = _status("RssAnon")
        while not self._over.wait(0.005):
            self.outside_files = max(self.outside_files, _status("RssAnon"))


def reset_peak() -> bool:
    """Make the peak of this process's resident memory begin anew, where the system can; whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_resident() -> float:
    """Peak of the resident memory of this process, in MiB.

    On Linux it is the process's own mark: what `getrusage` gives there begins at the size of the parent process.
    """
    return _status("VmHWM") or _usage()


def resident() -> float:
    """Resident memory of this process now, in MiB; its peak where the system does not tell."""
    return _status("VmRSS") or _usage()


def _status(field: str) -> float:
    if not _STATUS.exists():
        return 0.0
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _usage() -> float:
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)
