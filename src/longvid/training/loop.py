"""The one training loop: it yields a record after every step, so that logging, early stopping and previews live outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

Batch = dict[str, Any]
BatchSource = Callable[[int], Batch]
"""Maps the index of a micro-batch (unique over steps, accumulation and processes) to that micro-batch."""


@dataclass
class OptimizerOptions:
    """How the weights move: AdamW, its schedule, the average that is kept of them, and the precision of the arithmetic."""

    learning_rate: float = 1e-4
    lr_schedule: str = "constant_with_warmup"
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"


@dataclass(frozen=True)
class TrainingRecord:
    """What one optimizer step did: `metrics` are means over the step's micro-batches on this process."""

    step: int
    num_steps: int
    metrics: dict[str, float]
    learning_rate: float
    seconds: float
    is_main_process: bool = True


@dataclass
class _Progress:
    """The step counter, in the form that accelerate saves and loads with the rest of the state."""

    step: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

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
    When the iterator ends, the averaged weights (if `ema_decay` is above 0) are in place in `objective`.

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
        ValueError: if nothing in `objective` requires a gradient, or the loss stops being finite.
    """
    accelerator = accelerator or make_accelerator(options)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("expected at least one parameter that requires a gradient in the objective; got none")
    optimizer = torch.optim.AdamW(parameters, options.learning_rate, options.betas, weight_decay=options.weight_decay)
    schedule = get_scheduler(
        options.lr_schedule, optimizer, num_warmup_steps=options.warmup_steps, num_training_steps=num_steps
    )
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    ema = EMAModel(parameters, decay=options.ema_decay, use_ema_warmup=False) if options.ema_decay > 0 else None
    progress = _Progress()
    accelerator.register_for_checkpointing(schedule, progress, *([_Averaged(ema)] if ema else []))
    if checkpoint_dir is not None and (latest := latest_checkpoint(checkpoint_dir)) is not None:
        accelerator.load_state(str(latest))
    while progress.step < num_steps:
        started = time.perf_counter()
        metrics = _accumulate(accelerator, wrapped, batches, optimizer, progress.step, seed, options)
        schedule.step()
        if ema is not None:
            ema.step(parameters)
        progress.step += 1
        if checkpoint_dir is not None and (progress.step % checkpoint_every == 0 or progress.step == num_steps):
            _save(accelerator, Path(checkpoint_dir), progress.step)
        yield TrainingRecord(
            progress.step, num_steps, metrics, schedule.get_last_lr()[0], time.perf_counter() - started,
            accelerator.is_main_process,
        )  # fmt: skip
    if ema is not None:
        ema.copy_to(parameters)


def make_accelerator(options: OptimizerOptions, **kwargs: Any) -> Accelerator:
    """The accelerator that `train` uses: as many processes as `accelerate launch` (or torchrun) started."""
    return Accelerator(
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        mixed_precision=options.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        **kwargs,
    )


def latest_checkpoint(checkpoint_dir: str | Path) -> Path | None:
    """The newest complete checkpoint in a folder, or None."""
    found = sorted(Path(checkpoint_dir).glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return found[-1] if found else None


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
            values = wrapped(batches(index), generator)
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


def _save(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write a checkpoint beside its place and move it there, so that a half-written one is never found; keep the last."""
    partial, final = folder / f"partial-{step}", folder / f"step-{step}"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        import shutil

        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in folder.glob("step-*"):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


class _Averaged:
    """Gives diffusers' EMAModel the two method names that accelerate's checkpoints call."""

    def __init__(self, ema: EMAModel) -> None:
        self.ema = ema

    def state_dict(self) -> dict[str, Any]:
        return self.ema.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ema.load_state_dict(state)
