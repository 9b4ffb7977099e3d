"""Trains CAM and its alternatives on one text-to-video model, each once, and makes videos with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from longvid.metrics.base import MissingWeights
from longvid.metrics.scene_cuts import SceneCuts
from longvid.modules.conditional_attention import ConditionalAttentionModule
from longvid.modules.conditioning_ablations import AddedConditioning, ConcatenatedConditioning
from longvid.modules.unet import VideoUNet
from longvid.pipelines.streaming_t2v import StreamingT2VPipeline
from longvid.pipelines.streaming_t2v_growth import load_video_model
from longvid.reproduce.experiment import Setup, Variant
from longvid.reproduce.streaming_t2v import ENHANCER
from longvid.reproduce.streaming_t2v_bench import StreamingBench
from longvid.reproduce.streaming_t2v_trained import SCUTS, Conditioning
from longvid.reproduce.training_runs import NUM_SCENES, follow, models_folder, share_latents
from longvid.reproduce.video_bench import weights_of
from longvid.sprites.scene import Scene
from longvid.training.config_video import StreamingT2VSettings
from longvid.training.run_video import run_streaming_t2v
from longvid.training.streaming_t2v import wake

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "streaming-t2v-tiny.yaml"
STAGES = {"module": ("cam", "apm"), "module and UNet": ("apm", "cam")}
"""The stage of the recipe that is trained, and the one that is left out."""


class TrainedStreamingBench(StreamingBench):
    """Videos of models that are trained first; a variant's `how` is a `Conditioning`.

    Models lie in `setup.models`, in a folder of what they start from and of their recipe, and are trained once: a training
    that was stopped goes on from its last checkpoint.

    Args:
        setup: How much, and where.
        base: The text-to-video model that all grow from.
        settings: Settings of the recipe, nested, for all trainings.
    """

    def __init__(self, setup: Setup, base: str = ENHANCER, settings: Mapping[str, Any] | None = None) -> None:
        self.check_frames(setup)
        self.setup, self.base = setup, base
        if setup.size.training_steps is None:
            raise ValueError("this experiment trains: training_steps must be a number of at least 1; got None")
        self.recipe = {"num_scenes": NUM_SCENES, "checkpoint_every": 100} | dict(settings or {})
        self.pipe: Any = load_video_model(base)  # whose autoencoder shows what can be reached
        self.folder = models_folder(setup.models, self.settings)
        self._pipes: dict[tuple[str, str | None, bool, int], StreamingT2VPipeline] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The base, the training and the length of the videos."""
        steps = {"training_steps": self.setup.size.training_steps, "frames": self.setup.size.num_frames}
        recipe = {name: value for name, value in self.recipe.items() if name != "checkpoint_every"}
        return {"base": self.base, "weights": weights_of(self.pipe), **steps, "recipe": recipe}

    @property
    def constants(self) -> Mapping[str, Any]:
        """Chunk size and overlap of the recipe."""
        settings = self.recipe_settings(Conditioning(), 0)
        return {"chunk_size": settings.chunk_size, "overlap": settings.overlap}

    def pipeline(self, variant: Variant, seed: int) -> StreamingT2VPipeline:
        """The variant's model, trained now if it is not there yet."""
        how: Conditioning = variant.how
        key = (how.kind, how.learns, how.awake, seed)
        if key not in self._pipes:
            self._pipes[key] = self._untrained(how) if how.learns is None else self._trained(how, seed)
        pipe = self._pipes[key]
        if pipe.config["context"] == how.context:
            return pipe
        changed = StreamingT2VPipeline.from_pipe(pipe, cam=pipe.cam, context=how.context)
        changed.set_progress_bar_config(disable=True)
        return changed

    def call(self, variant: Variant) -> dict[str, Any]:
        """Nothing but the recommended defaults."""
        return {}

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """With the scene cuts."""
        rows = super().read(variant, scenes, videos)
        return [row | {SCUTS.name: scene_cuts(video)} for row, video in zip(rows, videos, strict=True)]

    def train(self, how: Conditioning, seed: int) -> Path:
        """The folder of a trained model."""
        kind = how.kind + "-unet" * (how.learns == "module and UNet") + "-awake" * how.awake
        output = self.folder / f"streaming-t2v-{kind}-{self.setup.size.training_steps}-steps-seed-{seed}"
        if (output / "model_index.json").is_file():
            return output
        settings = replace(self.recipe_settings(how, seed), output=str(output))
        share_latents(output, self.folder.glob(f"streaming-t2v-*-seed-{seed}"))
        follow(run_streaming_t2v(settings, partial(grown, how)), output.name, self.setup.say)
        return output

    def recipe_settings(self, how: Conditioning, seed: int) -> StreamingT2VSettings:
        """The recipe with one stage of `training_steps`, and without a long-term memory."""
        from omegaconf import OmegaConf

        trained, skipped = STAGES[how.learns or "module"]
        stages = {trained: {"num_steps": self.setup.size.training_steps, "seed": seed}, skipped: {"num_steps": 0}}
        parts = [
            OmegaConf.load(CONFIG),
            self.recipe,
            {"base": self.base, "image_encoder": None, "seed": seed, "train_spatial_layers": True, **stages},
            {"awake_start": how.awake},
        ]
        if how.learns == "module and UNet":  # as the module alone learns
            parts.insert(1, {"apm": {"optimizer": OmegaConf.load(CONFIG).cam.optimizer}})
        merged = OmegaConf.merge(
            OmegaConf.structured(StreamingT2VSettings), *(OmegaConf.create(part) for part in parts)
        )
        return OmegaConf.to_object(merged)  # type: ignore[return-value]

    def _trained(self, how: Conditioning, seed: int) -> StreamingT2VPipeline:
        return self.load(StreamingT2VPipeline, str(self.train(how, seed)))

    def _untrained(self, how: Conditioning) -> StreamingT2VPipeline:
        pipe = grown(how, self.recipe_settings(how, 0)).to(self.setup.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def grown(how: Conditioning, settings: StreamingT2VSettings) -> StreamingT2VPipeline:
    """A text-to-video model with a new conditioning module, which changes nothing yet."""
    base = load_video_model(settings.base)
    unet = base.unet if isinstance(base.unet, VideoUNet) else VideoUNet.from_unet(base.unet)
    base.register_modules(unet=unet)
    widths = {"frame_encoder_widths": tuple(settings.frame_encoder_widths)}
    modules: dict[str, Any] = {
        "attended": partial(ConditionalAttentionModule.from_unet, **widths),
        "added": partial(AddedConditioning.from_unet, **widths),
        "concatenated": ConcatenatedConditioning.from_unet,
    }
    cam = modules[how.kind](unet)
    if settings.awake_start:
        wake(cam)
    return StreamingT2VPipeline.from_base(
        base,
        cam=cam,
        chunk_size=settings.chunk_size,
        overlap=settings.overlap,
        call_defaults=dict(settings.call_defaults) or None,
    )


def scene_cuts(video: Tensor) -> float | None:
    """SCuts of a video (3, F, H, W) in [0, 1]; None without PySceneDetect."""
    try:
        metric = SceneCuts()
    except MissingWeights:
        return None
    metric.update(video.transpose(0, 1))
    return metric.compute().value
