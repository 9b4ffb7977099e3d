"""What the benches share that train their models first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from longvid.pipelines.fingerprint import hash_settings
from longvid.reproduce.run import writable_folder
from longvid.training.loop import TrainingRecord

NUM_SCENES = 2000
"""Drawn clips that a model of an experiment learns from."""
REPORT_EVERY = 50


def models_folder(models: Path, settings: Mapping[str, Any]) -> Path:
    """The folder in `models` of what is trained from these weights by this recipe, which are named in `settings`.

    Its name is a hash of both: a model that was trained from other weights is never taken for one that is asked for.
    """
    return writable_folder(models / hash_settings("trained", {name: settings[name] for name in ("weights", "recipe")}))


def follow(records: Iterable[TrainingRecord], name: str, say: Callable[[str], None]) -> None:
    """Run a training to its end and tell of every fiftieth step."""
    say(f"training {name}")
    for record in records:
        if record.metrics and (record.step % REPORT_EVERY == 0 or record.step == record.num_steps):
            loss, left = record.metrics["loss"], record.seconds * (record.num_steps - record.step)
            say(f"{name}  step {record.step}/{record.num_steps}  loss {loss:.4f}  about {left:.0f} s left")


def share_latents(output: Path, others: Iterable[Path]) -> None:
    """Take the encoded clips of another training for the one in `output`, which checks that they are the right ones."""
    target = output / "training" / "latents.safetensors"
    made = [path / "training" / target.name for path in sorted(others) if path != output]
    made = [path for path in made if path.is_file()]
    if made and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".copied")
        shutil.copyfile(made[0], partial)
        partial.replace(target)
