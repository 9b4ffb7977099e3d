"""The laws of the training loop, on a model whose gradient is known."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import toy_training
from longvid.training.loop import OptimizerOptions, latest_checkpoint, make_accelerator, train
from toy_training import OPTIONS, Line, points

PLAIN = OptimizerOptions(
    learning_rate=0.1, lr_schedule="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=0.0, ema_decay=0.0
)


def fit(model, num_steps, options=OPTIONS, *, stop=None, source=points, **more):
    """Train, or stop after `stop` steps as someone does who breaks out of the loop; returns the records."""
    records = []
    for record in train(model, source, options, num_steps=num_steps, **more):
        records.append(record)
        if record.step == stop:
            break
    return records


def program(*words, **environment):
    command = [sys.executable, toy_training.__file__, *map(str, words)]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def test_ten_steps_equal_five_a_stop_and_five_bit_for_bit(tmp_path):
    whole, rest = Line(), Line(first=7.0)
    records = fit(whole, 10)
    fit(Line(), 10, stop=5, checkpoint_dir=tmp_path, checkpoint_every=5)
    resumed = fit(rest, 10, checkpoint_dir=tmp_path, checkpoint_every=5)
    assert [record.step for record in resumed] == [6, 7, 8, 9, 10]
    assert [(r.metrics, r.learning_rate) for r in resumed] == [(r.metrics, r.learning_rate) for r in records[5:]]
    assert torch.equal(whole.weight, rest.weight)


def test_a_finished_run_started_again_gives_its_weights_at_once(tmp_path):
    first, again = Line(), Line(first=7.0)
    fit(first, 4, checkpoint_dir=tmp_path)
    assert fit(again, 4, checkpoint_dir=tmp_path) == []
    assert torch.equal(first.weight, again.weight)


def test_the_average_of_the_weights_is_what_ends_in_the_objective():
    model = Line()
    average = model.weight.detach().clone()
    for record in train(model, points, OPTIONS, num_steps=8):
        decay = 0.0 if record.step == 1 else min(OPTIONS.ema_decay, record.step / (9 + record.step))
        average = decay * average + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(model.weight.detach(), average)


def test_the_seed_changes_the_noise_and_the_same_seed_does_not():
    losses = [fit(Line(), 2, seed=seed)[-1].metrics["loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_accumulated_gradients_are_the_mean_over_the_micro_batches():
    model = Line(noise=0.0)
    start = model.weight.detach().clone()
    parts = [points(index) for index in range(4)]
    gradient = sum(2 * b["x"].T @ (b["x"] @ start - b["y"]) / 4 for b in parts) / 4
    (record,) = fit(model, 1, replace(PLAIN, gradient_accumulation_steps=4))
    step = PLAIN.learning_rate * gradient / (gradient.abs() + 1e-8)  # Adam's first step
    torch.testing.assert_close(model.weight.detach(), start - step)
    losses = [(b["x"] @ start - b["y"]).square().mean() for b in parts]
    assert record.metrics["loss"] == pytest.approx(float(sum(losses) / 4))


def test_a_long_gradient_is_shortened_to_the_norm():
    start, short = Line(noise=0.0), Line(noise=0.0)
    sgd_like = replace(PLAIN, max_grad_norm=1e-9)  # so short that Adam's epsilon, 1e-8, is ten times as long
    fit(short, 1, sgd_like)
    moved = (short.weight - start.weight).detach().norm() / PLAIN.learning_rate
    assert moved < 0.1


class Dying(Accelerator):
    """Fails in the middle of writing its second checkpoint."""

    saves = 0

    def save_state(self, output_dir=None, *args, **kwargs):
        super().save_state(output_dir, *args, **kwargs)
        self.saves += 1
        if self.saves == 2:
            Path(output_dir, "model.safetensors").write_bytes(b"half")
            raise OSError("disk full")
        return output_dir


def test_a_crash_while_a_checkpoint_is_written_leaves_the_older_one_usable(tmp_path):
    whole, rest = Line(), Line(first=7.0)
    fit(whole, 6)
    with pytest.raises(OSError, match="disk full"):
        fit(Line(), 6, checkpoint_dir=tmp_path, checkpoint_every=2, accelerator=Dying())
    assert latest_checkpoint(tmp_path) == tmp_path / "step-2"
    assert (tmp_path / "partial-4").exists()
    assert [record.step for record in fit(rest, 6, checkpoint_dir=tmp_path, checkpoint_every=2)] == [3, 4, 5, 6]
    assert torch.equal(whole.weight, rest.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["step-6"]


def test_a_killed_process_goes_on_exactly(tmp_path):
    killed = program(tmp_path, 8, 5)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert latest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-4"
    whole, rest = Line(), Line(first=7.0)
    fit(whole, 8)
    fit(rest, 8, checkpoint_dir=tmp_path / "checkpoints")
    assert torch.equal(whole.weight, rest.weight)


@pytest.mark.slow
def test_two_processes_equal_one_that_accumulates_twice(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [program(tmp_path, 5, -1, RANK=str(rank), LOCAL_RANK=str(rank), **together) for rank in range(2)]
    errors = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], errors
    alone = Line()
    fit(alone, 5, replace(OPTIONS, gradient_accumulation_steps=2))
    torch.testing.assert_close(alone.weight.detach(), torch.load(tmp_path / "weight.pt"), rtol=0, atol=1e-5)


class Overflowing(Line):
    """Has a finite loss and, in the batches marked so, a gradient that is not."""

    def forward(self, batch, generator):
        values = super().forward(batch, generator)
        return {**values, "loss": values["loss"] + (batch["overflow"] * self.weight[0]).abs().sqrt()}


def test_a_step_whose_gradient_overflows_moves_nothing():
    accelerator = make_accelerator(OPTIONS)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    model, options = Overflowing(), replace(OPTIONS, max_grad_norm=0.0, ema_decay=0.0)
    seen = []

    def source(index):
        return {**points(index), "overflow": 0.0 if index == 2 else 1.0}

    for record in train(model, source, options, num_steps=4, accelerator=accelerator):
        seen.append((record.learning_rate, model.weight.detach().clone()))
    assert seen[2][0] == seen[1][0] != seen[3][0]
    assert torch.equal(seen[2][1], seen[1][1])
    assert not torch.equal(seen[3][1], seen[2][1])


def test_stages_of_one_process_may_differ_in_precision_and_leave_no_wrapper():
    for precision in ("bf16", "no"):
        model = Line()
        fit(model, 2, replace(OPTIONS, mixed_precision=precision))
        assert model.weight.dtype == torch.float32
        assert "forward" not in vars(model) or model.forward.__func__ is Line.forward


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="at least one parameter that requires a gradient"):
        fit(nn.Identity(), 1)


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        fit(Line(first=float("nan")), 1)


def test_a_damaged_checkpoint_is_named(tmp_path):
    fit(Line(), 2, checkpoint_dir=tmp_path)
    (tmp_path / "step-2" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="step-2 is damaged or another model's; delete it to start anew"):
        fit(Line(), 2, checkpoint_dir=tmp_path)


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="precision"):
        fit(Line(), 1, replace(OPTIONS, mixed_precision="fp17"))


def test_a_schedule_ends_at_the_smallest_learning_rate():
    options = replace(PLAIN, learning_rate=0.1, min_learning_rate=0.02, lr_schedule="cosine")
    rates = [record.learning_rate for record in fit(Line(), 4, options)]
    assert rates == pytest.approx([0.02 + 0.08 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(1, 5)])
    warm = replace(options, warmup_steps=2)
    assert [r.learning_rate for r in fit(Line(), 4, warm)] == pytest.approx([0.06, 0.1, 0.06, 0.02])
