"""The folder of a training run: its settings, checkpoints while a stage runs, and the model once a stage is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from longvid.training.frame_store import FrameStore
from longvid.training.loop import BatchSource, TrainingRecord, this_process, train

MAY_CHANGE = ("output", "checkpoint_every", "num_steps", "gradient_checkpointing", "call_defaults")
"""Settings that a run may be continued with other values of."""


class Workspace:
    """Lets a run of several stages be killed at any moment and started again: it goes on where it was.

    Everything lies in `output/training` until the pipeline folder `output` itself is written. A file or folder that has
    its final name is complete.

    Args:
        output: The folder of the model to be made.
        settings: The settings of the run, a dataclass.

    Raises:
        ValueError: if the folder cannot be made, or holds a run with other settings.
    """

    def __init__(self, output: str | Path | None, settings: Any) -> None:
        if output is None:
            raise ValueError("there is no place for the model: set output (--output FOLDER)")
        self.output, self.root = Path(output), Path(output) / "training"
        self.process = this_process()
        self.checkpoint_every: int = settings.checkpoint_every
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._claim(settings)
        except OSError as error:
            raise ValueError(f"cannot write into {self.output}: {error.strerror}") from error

    def train(self, stage: str, objective: nn.Module, batches: BatchSource, recipe: Any) -> Iterator[TrainingRecord]:
        """Train a stage, from its last checkpoint if there is one; afterwards `objective` holds the averaged weights."""
        options = {"num_steps": recipe.num_steps, "seed": recipe.seed, "checkpoint_every": self.checkpoint_every}
        for record in train(objective, batches, recipe.optimizer, checkpoint_dir=self.root / stage, **options):
            yield replace(record, stage=stage)

    def fill(self, stage: str, store: FrameStore) -> Iterator[TrainingRecord]:
        """Make the frames of every clip, each process its share."""
        index, count = self.process.process_index, self.process.num_processes
        share = len(range(index, len(store), count))
        for done in store.make(index, count):
            yield TrainingRecord(done, share, {}, 0.0, 0.0, self.process.is_main_process, stage)
        self.process.wait_for_everyone()

    def model(self, stage: str) -> Path | None:
        """The folder of a finished stage's model, or None."""
        folder = self.root / stage / "model"
        return folder if folder.is_dir() else None

    def keep(self, stage: str, **parts: Any) -> None:
        """Save the model of a stage, each part in a folder of its name; with that the stage is done.

        Every process has to call it. A model that lies there already stays.
        """
        folder = self.root / stage / "model"
        if self.process.is_main_process and not folder.is_dir():
            partial = folder.with_name("model-partial")
            shutil.rmtree(partial, ignore_errors=True)
            for name, part in parts.items():
                part.save_pretrained(str(partial / name))
            partial.rename(folder)
        self.process.wait_for_everyone()

    def publish(self, save: Callable[[str], object]) -> None:
        """Put the pipeline folder that `save(folder)` writes in its place, `model_index.json` last."""
        if self.process.is_main_process:
            partial = self.root / "pipeline-partial"
            shutil.rmtree(partial, ignore_errors=True)
            save(str(partial))
            (self.output / "model_index.json").unlink(missing_ok=True)
            for part in sorted(partial.iterdir(), key=lambda path: path.name == "model_index.json"):
                target = self.output / part.name
                if target.is_dir():
                    shutil.rmtree(target)
                part.replace(target)
            partial.rmdir()
        self.process.wait_for_everyone()

    def _claim(self, settings: Any) -> None:
        """Write the settings down; where others lie already, compare."""
        from omegaconf import OmegaConf

        path, now = self.root / "settings.yaml", OmegaConf.structured(settings)
        if path.exists():
            before = dict(_flat(OmegaConf.to_container(OmegaConf.load(path))))
            as_read = OmegaConf.create(OmegaConf.to_yaml(now))  # tuples as lists
            for key, value in _flat(OmegaConf.to_container(as_read)):
                if key in before and before[key] != value and not set(key.split(".")) & set(MAY_CHANGE):
                    raise ValueError(
                        f"{self.output} holds a run with {key}={before[key]}; got {key}={value}: go on with the same"
                        " settings, or choose another output"
                    )
        elif self.process.is_main_process:
            partial = path.with_suffix(".partial")
            partial.write_text(OmegaConf.to_yaml(now), encoding="utf-8")
            partial.replace(path)


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise ValueError(f"expected settings as a mapping; got {type(values).__name__}")
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
