"""The one training loop: it yields a record after every step, so that logging, early stopping and previews live outside."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env, send_to_device
from diffusers import ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

_STEP = re.compile(r"step-(\d+)")

Batch = dict[str, Any]
BatchSource = Callable[[int], Batch]
"""Maps the index of a micro-batch (unique over steps, accumulation and processes) to that micro-batch."""


@dataclass
class OptimizerOptions:
    """How the weights move: AdamW, its schedule, the average that is kept of them, and the precision of the arithmetic.

    Attributes:
        lr_schedule: A schedule of diffusers, such as "constant", "constant_with_warmup" or "cosine".
        min_learning_rate: Where the schedule has its zero.
        max_grad_norm: Longer gradients are shortened to this norm; 0 leaves them.
        ema_decay: Decay of the averaged weights; 0 keeps no average.
        gradient_accumulation_steps: Micro-batches per optimizer step and process.
        mixed_precision: "no", "bf16" or "fp16".
        gradient_checkpointing: Compute activations twice instead of keeping them: slower, in less memory.
    """

    learning_rate: float = 1e-4
    lr_schedule: str = "constant_with_warmup"
    min_learning_rate: float = 0.0
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class TrainingRecord:
    """What one optimizer step did.

    Attributes:
        step: The number of this step, from 1.
        metrics: Means over the step's micro-batches on this process.
        seconds: What the step took, without what the reader of the record does.
        stage: Name of the stage of a longer run.
    """

    step: int
    num_steps: int
    metrics: dict[str, float]
    learning_rate: float
    seconds: float
    is_main_process: bool = True
    stage: str | None = None


@dataclass
class _Progress:
    """The step counter, in the form that accelerate saves and loads with the rest of the state."""

    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def train(
    objective: nn.Module,
    batches: BatchSource,
    options: OptimizerOptions,
    *,
    num_steps: int,
    seed: int = 0,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 1000,
    accelerator: Accelerator | None = None,
) -> Iterator[TrainingRecord]:
    """Minimise `objective(batch, generator)["loss"]` over the parameters of `objective` that require gradients.

    Everything random in micro-batch k, the batch and the noise alike, depends on (`seed`, k) alone, so a run that was killed
    and started again from its last checkpoint continues exactly as if it had not been: 10 steps equal 5 + save + load + 5.
    When the iterator ends, the averaged weights (if `ema_decay` is above 0) are in place in `objective`. A step whose
    gradient overflows in fp16 is counted, but moves neither the weights, nor their average, nor the schedule.

    Args:
        objective: Maps a batch and a generator to a dict of scalars; the gradient is taken of `"loss"`.
        batches: See `BatchSource`.
        options: Optimizer, schedule, averaging, precision.
        num_steps: Optimizer steps of the whole run, resumed ones included.
        seed: Seed of every draw.
        checkpoint_dir: Where checkpoints are written and looked for; None writes none.
        checkpoint_every: Steps between two checkpoints; the last step always writes one.
        accelerator: Brings your own; otherwise one is made from `options`.
    Yields:
        One `TrainingRecord` per optimizer step.
    Raises:
        ValueError: if nothing in `objective` requires a gradient, the loss stops being finite, or the checkpoint found
            is damaged or another model's.
    """
    accelerator = accelerator or make_accelerator(options)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("expected at least one parameter that requires a gradient in the objective; got none")
    optimizer = torch.optim.AdamW(parameters, options.learning_rate, options.betas, weight_decay=options.weight_decay)
    schedule = _schedule(optimizer, options, num_steps)
    if options.gradient_checkpointing:
        _checkpoint_gradients(objective)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    ema = EMAModel(parameters, decay=options.ema_decay, use_ema_warmup=False) if options.ema_decay > 0 else None
    progress = _Progress()
    accelerator.register_for_checkpointing(schedule, progress, *([_Averaged(ema, accelerator.device)] if ema else []))
    if checkpoint_dir is not None and (latest := latest_checkpoint(checkpoint_dir)) is not None:
        _load(accelerator, latest)
    try:
        while progress.step < num_steps:
            started = time.perf_counter()
            metrics = _accumulate(accelerator, wrapped, batches, optimizer, progress.step, seed, options)
            if not optimizer.step_was_skipped:
                schedule.step()
                if ema is not None:
                    ema.step(parameters)
            progress.step += 1
            if checkpoint_dir is not None and (progress.step % checkpoint_every == 0 or progress.step == num_steps):
                _save(accelerator, Path(checkpoint_dir), progress.step)
            yield TrainingRecord(
                progress.step, num_steps, metrics, float(schedule.get_last_lr()[0]), time.perf_counter() - started,
                accelerator.is_main_process,
            )  # fmt: skip
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)  # mixed precision had replaced `objective.forward`
    if ema is not None:
        ema.copy_to(parameters)


def make_accelerator(options: OptimizerOptions, **kwargs: Any) -> Accelerator:
    """The accelerator that `train` uses: as many processes as `accelerate launch` (or torchrun) started.

    Raises:
        ValueError: for a precision that does not exist or that this device cannot compute in.
    """
    this_process()
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != options.mixed_precision:
        AcceleratorState._reset_state()  # a process may train one stage after another, each in its own precision
    return Accelerator(
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        mixed_precision=options.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        **kwargs,
    )


def this_process() -> PartialState:
    """This process among those of the run; without it, accelerate sees processes on a CPU as runs of their own."""
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu)


def latest_checkpoint(checkpoint_dir: str | Path) -> Path | None:
    """The newest complete checkpoint in a folder, or None."""
    found = {
        int(match[1]): path for path in Path(checkpoint_dir).glob("step-*") if (match := _STEP.fullmatch(path.name))
    }
    return found[max(found)] if found else None


def _schedule(optimizer: torch.optim.Optimizer, options: OptimizerOptions, num_steps: int) -> Any:
    """The schedule of diffusers, between the smallest learning rate and the largest."""
    schedule = get_scheduler(
        options.lr_schedule, optimizer, num_warmup_steps=options.warmup_steps, num_training_steps=num_steps
    )
    if options.min_learning_rate == 0:
        return schedule
    lowest = options.min_learning_rate / options.learning_rate
    return LambdaLR(optimizer, [lambda step, f=f: lowest + (1 - lowest) * f(step) for f in schedule.lr_lambdas])


def _accumulate(
    accelerator: Accelerator,
    wrapped: nn.Module,
    batches: BatchSource,
    optimizer: Any,
    step: int,
    seed: int,
    options: OptimizerOptions,
) -> dict[str, float]:
    totals: dict[str, Tensor] = {}
    for part in range(options.gradient_accumulation_steps):
        index = (step * options.gradient_accumulation_steps + part) * accelerator.num_processes
        index += accelerator.process_index
        generator = torch.Generator(accelerator.device).manual_seed(hash((seed, index)) % 2**63)
        with accelerator.accumulate(wrapped):
            values = wrapped(send_to_device(batches(index), accelerator.device), generator)
            accelerator.backward(values["loss"])
            if accelerator.sync_gradients and options.max_grad_norm > 0:
                accelerator.clip_grad_norm_(wrapped.parameters(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value.detach() / options.gradient_accumulation_steps
    metrics = {name: value.item() for name, value in totals.items()}
    if not torch.isfinite(torch.tensor(metrics["loss"])):
        raise ValueError(f"the loss is {metrics['loss']} at step {step}; lower the learning rate or check the data")
    return metrics


def _checkpoint_gradients(objective: nn.Module) -> None:
    """Switch gradient checkpointing on in every network of diffusers or transformers that is trained."""
    for module in objective.modules():
        if any(parameter.requires_grad for parameter in module.parameters()):
            if isinstance(module, ModelMixin) and module._supports_gradient_checkpointing:
                module.enable_gradient_checkpointing()
            elif getattr(module, "supports_gradient_checkpointing", False):
                module.gradient_checkpointing_enable()  # type: ignore[operator]


def _save(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write a checkpoint beside its place and move it there, so that a half-written one is never found; keep the last."""
    partial, final = folder / f"partial-{step}", folder / f"step-{step}"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in [*folder.glob("step-*"), *folder.glob("partial-*")]:
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def _load(accelerator: Accelerator, checkpoint: Path) -> None:
    try:
        accelerator.load_state(str(checkpoint))
    except Exception as error:  # truncated or missing files, other shapes: every part has its own kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the checkpoint {checkpoint} is damaged or another model's; delete it to start anew ({reason})"
        ) from error


class _Averaged:
    """Gives diffusers' EMAModel the two method names that accelerate's checkpoints call."""

    def __init__(self, ema: EMAModel, device: torch.device) -> None:
        self.ema, self.device = ema, device

    def state_dict(self) -> dict[str, Any]:
        return self.ema.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ema.load_state_dict(state)
        self.ema.to(self.device)  # checkpoints are read on the CPU
