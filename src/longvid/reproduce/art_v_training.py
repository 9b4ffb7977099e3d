"""Trains the models of an experiment on ART-V, each once, and makes videos with them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from longvid.pipelines.art_v import ARTVPipeline
from longvid.pipelines.image_model import load_image_model
from longvid.pipelines.references import NoisyFrames
from longvid.reproduce.art_v_bench import ARTVBench
from longvid.reproduce.art_v_trained import Trained, Training
from longvid.reproduce.experiment import Setup, Variant
from longvid.reproduce.training_runs import NUM_SCENES, follow, models_folder, share_latents
from longvid.reproduce.video_bench import weights_of
from longvid.training.art_v import network_options
from longvid.training.config import ARTVSettings
from longvid.training.run import run_art_v


class BlankAnchorARTVPipeline(ARTVPipeline):
    """ART-V that is given a blank anchor, at every frame and in every branch of the guidance."""

    def _noisy_frames(self, context: Any, level: int, generator: Any, anchor_generator: Any) -> NoisyFrames:
        frames = super()._noisy_frames(context, level, generator, anchor_generator)
        height, width = (size * self.vae_scale_factor for size in frames.anchor.shape[-2:])
        blank = self.blank_latents(height, width, frames.anchor.device).to(frames.anchor.dtype)
        return replace(frames, anchor=blank.expand_as(frames.anchor))


class TrainedBench(ARTVBench):
    """Videos of models that are trained first; a variant's `how` is a `Trained`.

    Models lie in `setup.models`, in a folder of what they start from and of their recipe, and are trained once: a training
    that was stopped goes on from its last checkpoint, and experiments share what they have in common.

    Args:
        setup: How much, and where.
        base: The image model that all grow from.
        settings: Settings of the recipe, for all trainings.
    """

    def __init__(self, setup: Setup, base: str = "longvid/base-tiny", settings: dict[str, Any] | None = None) -> None:
        self.check_frames(setup)
        self.setup, self.base = setup, base
        if setup.size.training_steps is None:
            raise ValueError("this experiment trains: training_steps must be a number of at least 1; got None")
        self.recipe = {"num_scenes": NUM_SCENES, "checkpoint_every": 100} | (settings or {})
        self.image_model = load_image_model(base)
        self.pipe: Any = self.image_model  # whose autoencoder shows what can be reached
        self.folder = models_folder(setup.models, self.settings)
        self._pipes: dict[tuple[str, int], ARTVPipeline] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The base, the training and the length of the videos."""
        steps = {"training_steps": self.setup.size.training_steps, "frames": self.setup.size.num_frames}
        recipe = {name: value for name, value in self.recipe.items() if name != "checkpoint_every"}
        return {"base": self.base, "weights": weights_of(self.image_model), **steps, "recipe": recipe}

    def pipeline(self, variant: Variant, seed: int) -> ARTVPipeline:
        """The variant's model, trained now if it is not there yet."""
        how: Trained = variant.how
        key = (variant.name, seed)
        if key not in self._pipes:
            folder = self.train(how.training, seed)
            kind = BlankAnchorARTVPipeline if how.anchor == "blank" else ARTVPipeline
            self._pipes[key] = self.load(kind, str(folder), **dict.fromkeys(how.without))
        return self._pipes[key]

    def call(self, variant: Variant) -> dict[str, Any]:
        """Nothing but the recommended defaults."""
        return {}

    def train(self, training: Training, seed: int) -> Path:
        """The folder of a trained model."""
        steps = self.setup.size.training_steps
        output = self.folder / f"art-v-{training.name}-{steps}-steps-seed-{seed}"
        if (output / "model_index.json").is_file():
            return output
        settings = ARTVSettings(**{"num_steps": steps, "seed": seed, **self.recipe, **training.changes})  # type: ignore[arg-type]
        settings.output, settings.base = str(output), str(self._start(settings, training))
        share_latents(output, self.folder.glob(f"art-v-*-seed-{seed}"))
        follow(run_art_v(settings), output.name, self.setup.say)
        return output

    def _start(self, settings: ARTVSettings, training: Training) -> Path:
        """The untrained model; those of one seed differ in nothing but what they lack."""
        folder = self.folder / f"art-v-{training.name}-start-seed-{settings.seed}"
        if (folder / "model_index.json").is_file():
            return folder
        of_unet, of_mask = network_options(settings)
        torch.manual_seed(settings.seed)
        grown = ARTVPipeline.from_base(
            self.image_model, unet_options=of_unet, mask_options=of_mask, static_noise=settings.static_noise
        )
        parts = grown.components | {"scheduler": self.image_model.scheduler} | dict.fromkeys(training.without)
        constants = {name: grown.config[name] for name in ("static_noise", "prediction_type")}
        partial = folder.with_name(f".{folder.name}-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        ARTVPipeline(**parts, **constants).save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return folder
