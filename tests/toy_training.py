"""A model with a loss in closed form, for the laws of the training loop; also a program that trains it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from longvid.training.loop import Batch, OptimizerOptions, train

OPTIONS = OptimizerOptions(learning_rate=0.05, lr_schedule="cosine", warmup_steps=3, weight_decay=0.1, ema_decay=0.7)


class Line(nn.Module):
    """The mean squared error of a line through noisy points; the noise comes from the loop's generator."""

    def __init__(self, first: float = 1.0, noise: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([first, -1.0, 0.5]))
        self.noise = noise

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        error = batch["x"] @ self.weight - batch["y"]
        error = error + self.noise * torch.randn(error.shape, generator=generator)
        return {"loss": error.square().mean(), "bias": error.mean()}


def points(index: int) -> Batch:
    draws = torch.Generator().manual_seed(index)
    x = torch.randn(4, 3, generator=draws)
    return {"x": x, "y": x.sum(1)}


def killing_itself_at(last: int):
    """`points`, until micro-batch `last`: there the process dies as by kill -9."""

    def batch_at(index: int) -> Batch:
        if index == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return points(index)

    return batch_at


if __name__ == "__main__":  # FOLDER NUM_STEPS DEATH
    folder, num_steps, death = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    model = Line()
    options = {"num_steps": num_steps, "checkpoint_dir": folder / "checkpoints", "checkpoint_every": 2}
    for _ in train(model, killing_itself_at(death), OPTIONS, **options):
        pass
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(model.weight.detach(), folder / "weight.pt")
