"""Trains the rows of HARIVO's Table 1, each model once, and makes videos with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longvid.pipelines.harivo import HARIVOPipeline
from longvid.pipelines.image_model import load_image_model
from longvid.reproduce.experiment import Setup, Variant
from longvid.reproduce.harivo_bench import HARIVOBench
from longvid.reproduce.harivo_trained import Row
from longvid.reproduce.training_runs import NUM_SCENES, follow, models_folder, share_latents
from longvid.reproduce.video_bench import weights_of
from longvid.training.config import HARIVOSettings
from longvid.training.run_harivo import run_harivo

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class TrainedHARIVOBench(HARIVOBench):
    """Videos of models that are trained first; a variant's `how` is a `Row`.

    Models lie in `setup.models`, in a folder of what they start from and of their recipe, and are trained once: a training
    that was stopped goes on from its last checkpoint, and rows that differ in their call arguments alone share one.

    Args:
        setup: How much, and where.
        base: The image model that all are built around.
        settings: Settings of the recipe, nested, for all trainings.
    """

    def __init__(
        self, setup: Setup, base: str = "longvid/base-tiny", settings: Mapping[str, Any] | None = None
    ) -> None:
        self.check_frames(setup)
        self.setup, self.base = setup, base
        if setup.size.training_steps is None:
            raise ValueError("this experiment trains: training_steps must be a number of at least 1; got None")
        self.recipe = {"num_scenes": NUM_SCENES, "checkpoint_every": 100} | dict(settings or {})
        self.image_model = load_image_model(base)
        self.pipe: Any = self.image_model  # whose autoencoder shows what can be reached
        self.folder = models_folder(setup.models, self.settings)
        self._pipes: dict[tuple[str, int], HARIVOPipeline] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The base, the training and the length of the videos."""
        steps = {"training_steps": self.setup.size.training_steps, "frames": self.setup.size.num_frames}
        recipe = {name: value for name, value in self.recipe.items() if name != "checkpoint_every"}
        return {"base": self.base, "weights": weights_of(self.image_model), **steps, "recipe": recipe}

    def pipeline(self, variant: Variant, seed: int) -> HARIVOPipeline:
        """The row's model, trained now if it is not there yet."""
        row: Row = variant.how
        key = (row.training or row.config, seed)
        if key not in self._pipes:
            self._pipes[key] = self.load(HARIVOPipeline, str(self.train(*key)))
        return self._pipes[key]

    def call(self, variant: Variant) -> dict[str, Any]:
        """The call defaults of the row's configuration, and what the row changes of them."""
        row: Row = variant.how
        return {**row_settings(row.config, self.recipe).call_defaults, **row.call}

    def train(self, config: str, seed: int) -> Path:
        """The folder of a trained model."""
        steps = self.setup.size.training_steps
        output = self.folder / f"{config}-{steps}-steps-seed-{seed}"
        if (output / "model_index.json").is_file():
            return output
        changes = {**self.recipe, "base": self.base, "output": str(output), "num_steps": steps, "seed": seed}
        share_latents(output, self.folder.glob(f"harivo-*-seed-{seed}"))
        follow(run_harivo(row_settings(config, changes)), output.name, self.setup.say)
        return output


def row_settings(config: str, changes: Mapping[str, Any] | None = None) -> HARIVOSettings:
    """The settings of a configuration that ships, with nested changes."""
    from omegaconf import OmegaConf

    parts = [OmegaConf.load(CONFIGS / f"{config}.yaml"), OmegaConf.create(dict(changes or {}))]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HARIVOSettings), *parts))  # type: ignore[return-value]
