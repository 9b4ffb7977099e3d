"""The video base: a text-to-video UNet over one chunk of frames, from an image UNet or from nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules.inflation import inflated
from longvid.modules.unet import VideoUNet
from longvid.sprites import MOTIONS, Scene, caption_clip
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws, draw_timesteps
from longvid.training.latents import reversed_scenes, training_scenes
from longvid.training.loop import Batch, BatchSource, OptimizerOptions
from longvid.training.unet import loss_weight
from longvid.training.ways import SPEED_SAID, num_as_drawn, on_their_ways


@dataclass
class VideoBaseRecipe:
    """How the video base learns.

    `channels` None inflates the UNet of the image model; widths build a UNet of their own, with `layers_per_block`,
    `head_dim` and `norm_groups`. `clip_frames` are drawn of every scene, `num_frames` of them are a sample. For
    `max_weight` and `min_weight` see `unet.loss_weight`, for `timestep_power` `draws.draw_timesteps`. `ways` says where
    straight motions of the drawn clips go, see `ways.WAYS`; `as_drawn` is the share of clips that stay as they are whatever
    it says. Neither changes your own clips.
    """

    channels: tuple[int, ...] | None = None
    layers_per_block: int = 1
    head_dim: int = 8
    norm_groups: int = 16
    num_frames: int = 16
    drop_text: float = 0.1
    max_weight: float = 5.0
    min_weight: float | None = 0.2
    timestep_power: float = 0.43
    num_scenes: int = 5000
    clip_frames: int = 32
    motions: tuple[str, ...] = MOTIONS
    ways: str = "drawn"
    as_drawn: float = 0.0
    batch_size: int = 4
    num_steps: int = 1000
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(
            learning_rate=7e-4, lr_schedule="cosine", warmup_steps=30, ema_decay=0.993
        )
    )


class ErrorWeights(Protocol):
    """A recipe with the limits of `unet.loss_weight`."""

    max_weight: float
    min_weight: float | None


def build_video_unet(recipe: VideoBaseRecipe, image_unet: UNet2DConditionModel) -> VideoUNet:
    """The UNet to be trained: the image UNet inflated, or one of `recipe.channels` for the same latents and text."""
    if recipe.channels is None:
        return inflated(image_unet)
    levels = len(recipe.channels)
    return VideoUNet(
        sample_size=image_unet.config["sample_size"],
        in_channels=image_unet.config["in_channels"],
        out_channels=image_unet.config["out_channels"],
        down_block_types=("CrossAttnDownBlock3D",) * levels,
        up_block_types=("CrossAttnUpBlock3D",) * levels,
        block_out_channels=tuple(recipe.channels),
        layers_per_block=recipe.layers_per_block,
        norm_num_groups=recipe.norm_groups,
        cross_attention_dim=image_unet.config["cross_attention_dim"],
        attention_head_dim=recipe.head_dim,
    )


class VideoObjective(nn.Module):
    r"""Maps latents (B, C, F, h, w) and captions to the weighted denoising loss of a video UNet.

    .. math:: \mathbb{E}\; w(t)\, \lVert y - \hat y(x_t, t, c) \rVert^2

    where y is what `scheduler` says the UNet predicts and w is `unet.loss_weight`.

    The batch holds `latents` and either `prompt_embeds` (B, N, D) with `null_embeds`, or `input_ids` (B, N) for
    `text_encoder`.
    """

    null_ids: Tensor

    def __init__(
        self,
        unet: VideoUNet,
        scheduler: DDPMScheduler,
        recipe: VideoBaseRecipe,
        text_encoder: nn.Module,
        null_ids: Tensor,
    ) -> None:
        super().__init__()
        self.unet, self.scheduler, self.recipe = unet, scheduler, recipe
        self.text_encoder = text_encoder.requires_grad_(False)
        self.register_buffer("null_ids", null_ids, persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        latents = batch["latents"]
        drop = torch.rand(len(latents), generator=generator, device=latents.device) < self.recipe.drop_text
        with torch.no_grad():
            ids = torch.where(drop[:, None], self.null_ids, batch["input_ids"])
            text = self.text_encoder(ids).last_hidden_state
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        t = draw_timesteps(self.scheduler, len(latents), self.recipe.timestep_power, generator)
        predicted = self.unet(self.scheduler.add_noise(latents, noise, t), t, text, return_dict=False)[0]  # type: ignore[arg-type]
        return weighted_error(predicted, latents, noise, t, self.scheduler, self.recipe)


def weighted_error(
    predicted: Tensor, latents: Tensor, noise: Tensor, t: Tensor, scheduler: DDPMScheduler, recipe: ErrorWeights
) -> dict[str, Tensor]:
    """The loss and the plain error of a prediction, of noise or of velocity as `scheduler` says."""
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, t) if velocity else noise  # type: ignore[arg-type]
    error = (predicted - target).square().mean((1, 2, 3, 4))
    weight = loss_weight(scheduler, t, recipe.max_weight, recipe.min_weight)
    return {"loss": (error * weight).mean(), "error": error.mean()}


def video_base_scenes(recipe: VideoBaseRecipe) -> list[Scene]:
    """The scenes of the drawn world that the recipe asks for."""
    scenes = training_scenes(recipe.num_scenes, recipe.seed, tuple(recipe.motions))
    return on_their_ways(scenes, recipe.ways, recipe.clip_frames, recipe.as_drawn)


def drawn_clips(recipe: VideoBaseRecipe, latents: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer) -> BatchSource:
    """Micro-batch k: stretches of `num_frames` out of the latents (N, F, C, h, w) of drawn clips, with their captions.

    Half the clips run backwards, where the world has words for it and what they say is not held out of training. The first
    clips are those that stay as drawn, see `VideoBaseRecipe`.
    """
    num_clips, clip_frames = latents.shape[:2]
    backwards, as_drawn = reversed_scenes(scenes), num_as_drawn(recipe.as_drawn, recipe.num_scenes)
    omit = SPEED_SAID if recipe.ways == "typical" else None

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clips = torch.randint(0, num_clips, (recipe.batch_size,), generator=draws).tolist()
        starts = torch.randint(0, clip_frames - recipe.num_frames + 1, (recipe.batch_size,), generator=draws).tolist()
        flips = (torch.rand(recipe.batch_size, generator=draws) < 0.5).tolist()
        stretches, captions = [], []
        for row, (clip, start, flip) in enumerate(zip(clips, starts, flips, strict=True)):
            back = backwards[clip] if flip else None
            frames = latents[clip, start : start + recipe.num_frames].float()
            stretches.append(frames if back is None else frames.flip(0))
            seed = index * recipe.batch_size + row
            captions.append(caption_clip(back or scenes[clip], seed, None if clip < as_drawn else omit))
        return {"latents": torch.stack(stretches).transpose(1, 2), "input_ids": tokenize(tokenizer, captions)}

    return batch_at
