"""What `pipe.distribute` does: one video by several processes, with a GPU each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from longvid.samplers.processes import ALONE, LaunchedProcesses, Processes


@dataclass(frozen=True)
class Distribution:
    """How a pipeline is spread over processes.

    Attributes:
        processes: The group.
        device: Where this process works.
        spread: What the processes share out, one phrase each.
        left_out: What every process does for itself, or why nothing is spread.
    """

    processes: Processes
    device: str
    spread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = self.processes.count
        head = "one process" if count == 1 else f"process {self.processes.index} of {count}, on {self.device}"
        lines = [head, *(f"spread: {each}" for each in self.spread), *(f"not spread: {each}" for each in self.left_out)]
        return "\n  ".join(lines)


def process_state(device: str | None = None, timeout: timedelta | None = None) -> Any:
    """Give accelerate's `PartialState` of this process, which knows the others that were launched with it.

    Args:
        device: "cpu" keeps all processes on the CPU, and so does the environment variable `ACCELERATE_USE_CPU`.
        timeout: How long processes wait for each other; None takes that of torch.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, **({} if timeout is None else {"timeout": timeout}))


def distributed(pipe: Any, processes: Processes | None) -> Distribution:
    """Spread a pipeline over processes; see `distribute`."""
    if processes is None:
        processes = _launched(pipe)
    here = torch.device(pipe._execution_device)
    if processes.count == 1:
        return Distribution(
            ALONE,
            str(here),
            left_out=("anything: start several with accelerate launch --num_processes N, or torchrun",),
        )
    own = torch.device(getattr(processes, "device", here))
    if (here.type, here.index or 0) != (own.type, own.index or 0):
        raise ValueError(
            f"process {processes.index} works on {own}; expected the pipeline there, or a device named in "
            f"enable_model_cpu_offload; got it on {here}"
        )
    name = own.type if own.type == "cpu" else str(own)
    alike = "text, noise, scheduler, encoding and decoding of frames"
    return Distribution(processes, name, pipe.spread_work, (alike,))


def _launched(pipe: Any) -> Processes:
    state = process_state()
    if state.num_processes == 1:
        return ALONE
    offloaded = any(hasattr(part, "_hf_hook") for part in pipe.components.values() if isinstance(part, nn.Module))
    if not offloaded:
        pipe.to(state.device)
    return LaunchedProcesses(state.device)


def check_alone(pipe: Any) -> None:
    """Refuse a pipeline that is spread.

    Raises:
        ValueError: if it is.
    """
    if getattr(pipe, "processes", ALONE).count > 1:
        raise ValueError("a run folder is filled by one process; got a pipeline that is spread over several")
