"""Trains frame-wise tokens for a StreamingT2V model at rest, and makes videos with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from longvid.modules.frame_tokens import FrameTokenGenerator, frame_context
from longvid.pipelines.chunk_predictor import ChunkPredictor
from longvid.pipelines.streaming_t2v import StreamingT2VPipeline
from longvid.reproduce.experiment import Setup, Variant
from longvid.reproduce.frame_tokens import Tokens
from longvid.reproduce.streaming_t2v_bench import StreamingBench
from longvid.reproduce.streaming_t2v_training import CONFIG
from longvid.reproduce.training_runs import NUM_SCENES, follow, models_folder, share_latents
from longvid.training.clip import tokenize
from longvid.training.config_video import StreamingT2VSettings
from longvid.training.latent_sources import drawn_latents
from longvid.training.run_video import training_noise
from longvid.training.streaming_t2v import StreamingT2VObjective, drawn_chunks
from longvid.training.workspace import Workspace

STAGE = "frame_tokens"
LEARNING_RATE = 1e-2
"""Ten times that of CAM: from zeros, the tokens are to reach the length of words in a short training."""


class TokenedStreamingT2VPipeline(StreamingT2VPipeline):
    """StreamingT2V whose chunks behind the first tell every frame more than the text does.

    `frame_tokens` makes the tokens; None is plain StreamingT2V.
    """

    frame_tokens: FrameTokenGenerator | None = None

    def predictor(self, window: Any, state: Any, conditions: Any, **options: Any) -> ChunkPredictor:
        """The prediction of `StreamingT2VPipeline`; in every branch, frames hear the tokens of its text."""
        predict = super().predictor(window, state, conditions, **options)
        tokens = self.frame_tokens
        if tokens is not None and predict.cam is not None:
            predict.branches = [
                {**branch, "context": with_tokens(branch["context"], tokens(branch["text"]))}
                for branch in predict.branches
            ]
        return predict


class FrameTokenObjective(StreamingT2VObjective):
    """The denoising loss of a chunk whose frames hear tokens; nothing learns but what makes these."""

    def __init__(self, pipeline: StreamingT2VPipeline, tokens: FrameTokenGenerator, recipe: StreamingT2VSettings):
        networks = (pipeline.unet, pipeline.cam, pipeline.apm)
        super().__init__(
            *networks,
            training_noise(pipeline.scheduler),
            recipe,
            text_encoder=cast(nn.Module, pipeline.text_encoder),
            image_encoder=pipeline.image_encoder,
            null_ids=tokenize(pipeline.tokenizer, [""])[0],
        )
        for part in networks:
            if part is not None:
                part.requires_grad_(False)
        self.frame_tokens = tokens

    def _contexts(self, text: Tensor, anchor: Tensor, blank: Tensor) -> Any:
        return with_tokens(super()._contexts(text, anchor, blank), self.frame_tokens(text))


class FrameTokenBench(StreamingBench):
    """Videos of a StreamingT2V model with tokens that are trained first; a variant's `how` is a `Tokens`, or None.

    What was trained lies in `setup.models`, in a folder of the model and of the recipe, and is trained once: a training that
    was stopped goes on from its last checkpoint.

    Args:
        setup: How much, where, and which model.
        model: The model, if not the one that the setup names.
        settings: Settings of the recipe, nested, for all trainings.
    """

    kind = TokenedStreamingT2VPipeline

    def __init__(self, setup: Setup, model: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(setup, model)
        if setup.size.training_steps is None:
            raise ValueError("this experiment trains: training_steps must be a number of at least 1; got None")
        self.recipe = {
            "num_scenes": NUM_SCENES,
            "checkpoint_every": 100,
            "cam": {"optimizer": {"learning_rate": LEARNING_RATE}},
        } | dict(settings or {})
        self.folder = models_folder(setup.models, self.settings)
        self._trained: dict[tuple[Tokens, int], FrameTokenGenerator] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """With the training."""
        recipe = {name: value for name, value in self.recipe.items() if name != "checkpoint_every"}
        return super().settings | {"training_steps": self.setup.size.training_steps, "recipe": recipe}

    def pipeline(self, variant: Variant, seed: int) -> StreamingT2VPipeline:
        """The model with the variant's tokens, trained now if they are not there yet."""
        pipe, how = cast(TokenedStreamingT2VPipeline, self.pipe), cast(Tokens | None, variant.how)
        pipe.frame_tokens = None if how is None else self.tokens(how, seed)
        return pipe

    def call(self, variant: Variant) -> dict[str, Any]:
        """Nothing but the recommended defaults."""
        return {}

    def tokens(self, how: Tokens, seed: int) -> FrameTokenGenerator:
        """A trained generator."""
        if (how, seed) not in self._trained:
            stored: Any = FrameTokenGenerator.from_pretrained(str(self.train(how, seed) / STAGE))
            self._trained[how, seed] = stored.to(self.setup.device).eval()
        return self._trained[how, seed]

    def train(self, how: Tokens, seed: int) -> Path:
        """The folder of a trained generator."""
        kind = f"{how.per_frame}-tokens-smoothed-{how.smoothing:g}"
        name = f"streaming-t2v-{kind}-{self.setup.size.training_steps}-steps-seed-{seed}"
        settings = self.recipe_settings(seed, self.folder / name)
        share_latents(self.folder / name, self.folder.glob(f"streaming-t2v-*-seed-{seed}"))
        work = Workspace(settings.output, settings)
        folder = work.model(STAGE)
        if folder is None:
            torch.manual_seed(seed)
            objective = FrameTokenObjective(self.pipe, new_tokens(self.pipe, how), settings)
            latents, scenes = drawn_latents(work, self.pipe.vae, settings, num_frames=settings.clip_frames)
            batches = drawn_chunks(settings, latents, scenes, self.pipe.tokenizer)
            follow(work.train(STAGE, objective, batches, settings.cam), name, self.setup.say)
            work.keep(STAGE, **{STAGE: objective.frame_tokens.eval()})
            folder = cast(Path, work.model(STAGE))
        return folder

    def recipe_settings(self, seed: int, output: Path) -> StreamingT2VSettings:
        """The recipe of the model's short-term memory, for `training_steps`."""
        from omegaconf import OmegaConf

        own = {"base": self.model, "seed": seed, "awake_start": False, "output": str(output)}
        constants = {name: self.constants[name] for name in ("chunk_size", "overlap")}
        stages = {"cam": {"num_steps": self.setup.size.training_steps, "seed": seed}, "apm": {"num_steps": 0}}
        parts = [OmegaConf.load(CONFIG), *(OmegaConf.create(part) for part in (self.recipe, own | constants, stages))]
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StreamingT2VSettings), *parts))  # type: ignore[return-value]


def new_tokens(pipe: StreamingT2VPipeline, how: Tokens) -> FrameTokenGenerator:
    """A generator for the chunks of a model, whose tokens are zero."""
    text = cast(Any, pipe.text_encoder).config
    return FrameTokenGenerator(
        text_dim=text.hidden_size,
        num_text_tokens=pipe.tokenizer.model_max_length,
        num_frames=pipe.config["chunk_size"],
        tokens_per_frame=how.per_frame,
        zero_init_last=True,
        smoothing=how.smoothing,
    )


def with_tokens(text: Tensor | Sequence[Tensor], tokens: Tensor) -> Any:
    """Text, or a text per text layer, with the tokens of every frame behind it.

    Shapes:
        text (B, N, D), tokens (B, F, K, D) -> (B, F, N + K, D).
    """
    if not isinstance(text, Tensor):
        return [with_tokens(one, tokens) for one in text]
    num_frames = tokens.shape[1]
    return rearrange(frame_context(text, num_frames, tokens), "(b f) n d -> b f n d", f=num_frames)
