"""The HARIVO recipe: temporal layers, mapping network and frame tokens around a frozen image model, with its four losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDPMScheduler
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules import frame_context, image_view
from longvid.sprites import MOTIONS, Scene, caption_clip
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws, draw_timesteps
from longvid.training.harivo_alignment import AlignmentOptions
from longvid.training.harivo_distillation import DistillationOptions
from longvid.training.harivo_networks import HARIVONetworks, NetworkOptions
from longvid.training.latents import reversed_scenes
from longvid.training.loop import Batch, BatchSource, OptimizerOptions
from longvid.training.losses import ContrastiveLoss, mapping_regularisation, observed, temporal_attention_loss
from longvid.training.unet import loss_weight
from longvid.training.ways import SPEED_SAID, num_as_drawn


@dataclass
class AttentionLossOptions:
    """The temporal regularised self-attention loss, see `losses.temporal_attention_loss`; weight 0 leaves it out."""

    weight: float = 0.1
    reduction: str = "row"
    heads: str = "all"
    query_chunk: int = 256
    query_fraction: float = 1.0


@dataclass
class ContrastiveOptions:
    """The decoupled contrastive loss, see `losses.ContrastiveLoss`; weight 0 leaves it out."""

    weight: float = 0.1
    temperature: float = 0.1
    normalize: bool = True
    queue_size: int = 1024
    queue_store: str = "h"
    in_batch: bool = False


@dataclass
class RegularisationOptions:
    """The mapping regularisation, see `losses.mapping_regularisation`; weight 0 leaves it out.

    `num_frames` random frames of every step go through the image model, None: all.
    """

    weight: float = 0.1
    detach: bool = False
    num_frames: int | None = None


@dataclass
class HARIVORecipe:
    """How HARIVO learns.

    `timestep_power` draws t with a density that grows as its power, 0 is uniform; for `max_weight` and `min_weight` see
    `unet.loss_weight`; `beta_schedule` and `beta_end` change the image model's noise schedule, None keeps it.
    `train_frame_tokens` False leaves the generator as the alignment made it. `ways` says where straight motions of the
    drawn clips go, see `ways.WAYS`. `continuing` is the share of drawn clips that stay as they are whatever `ways`
    says, and whose frame tokens are those of an empty text: what the later windows of a long video hear, if its
    `continuing_tokens` are "empty". Neither changes your own clips. Of those clips the first `overlap` frames are seen at
    `context_noise` times the timestep and their error does not count, as the strategy "held" makes long videos; at 1 they
    are frames like others.
    """

    networks: NetworkOptions = field(
        default_factory=lambda: NetworkOptions(
            mapping_channels=32, mapping_conv="3d", motion_heads=4, motion_mid_block=True
        )
    )
    trs: AttentionLossOptions = field(default_factory=lambda: AttentionLossOptions(weight=0.001))
    dc: ContrastiveOptions = field(default_factory=lambda: ContrastiveOptions(weight=0.0))
    reg: RegularisationOptions = field(default_factory=lambda: RegularisationOptions(weight=0.02, num_frames=1))
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    train_frame_tokens: bool = False
    drop_text: float = 0.1
    timestep_power: float = 0.0
    max_weight: float = 20.0
    min_weight: float | None = 0.05
    beta_schedule: str | None = None
    beta_end: float | None = None
    num_scenes: int = 6000
    num_frames: int = 24
    motions: tuple[str, ...] = MOTIONS
    ways: str = "typical"
    continuing: float = 0.3
    context_noise: float = 1.0
    batch_size: int = 4
    num_steps: int = 1150
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(
            learning_rate=1e-3, lr_schedule="cosine", warmup_steps=100, ema_decay=0.998
        )
    )

    @property
    def overlap(self) -> int:
        """Frames that the windows of a long video share: a third of a window."""
        return self.num_frames // 3


class HARIVOObjective(nn.Module):
    r"""The loss of Eq. 5, :math:`L_{simple} + \lambda_{TRS} L_{TRS} + \lambda_{reg} L_{reg} + \lambda_{DC} L_{DC}`.

    :math:`L_{simple}` is the error of what the scheduler says the UNet predicts, weighted by `unet.loss_weight`; it is
    taken of the whole model only. The queue and the projection of the contrastive loss lie in `contrastive`.

    The batch holds `latents` (B, F, C, h, w), `input_ids` (B, N) for `text_encoder`, and may hold `continuing` (B,): clips
    whose frame tokens are those of an empty text.
    """

    null_ids: Tensor

    def __init__(
        self,
        networks: HARIVONetworks,
        scheduler: DDPMScheduler,
        recipe: HARIVORecipe,
        text_encoder: nn.Module,
        null_ids: Tensor,
        latent_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.unet, self.mapping_network, self.frame_tokens = networks
        self.unet.freeze_unet2d_params()
        if self.frame_tokens is not None:
            self.frame_tokens.requires_grad_(recipe.train_frame_tokens)
        self.scheduler, self.recipe = scheduler, recipe
        self.text_encoder = text_encoder.requires_grad_(False)
        self.register_buffer("null_ids", null_ids, persistent=False)
        self.contrastive = build_contrastive(recipe.dc, self.unet.config, latent_size)
        self._image_view = (image_view(self.unet),)  # in a tuple: its modules are the UNet's and no further ones

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        recipe, clean = self.recipe, rearrange(batch["latents"], "b f c h w -> b c f h w")
        size, num_frames = clean.shape[0], clean.shape[2]
        text = self._text(batch["input_ids"], generator)
        t = draw_timesteps(self.scheduler, size, recipe.timestep_power, generator)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        noisy = self.scheduler.add_noise(clean, noise, t)  # type: ignore[arg-type]
        held = self._held(batch.get("continuing"), noisy)
        if held is not None:
            context = self.scheduler.add_noise(clean, noise, (recipe.context_noise * t).long())  # type: ignore[arg-type]
            noisy = torch.where(held, context, noisy)
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(clean, noise, t) if velocity else noise  # type: ignore[arg-type]
        mapped = noisy if self.mapping_network is None else self.mapping_network(noisy)
        tokens = self._tokens(text, batch.get("continuing"), num_frames)
        with observed(self.unet, attention=recipe.trs.weight > 0, hidden=self.contrastive is not None) as seen:
            predicted = self.unet(mapped, t, frame_context(text, num_frames, tokens), return_dict=False)[0]
        squares = (predicted - target).square()
        error = squares.mean((1, 2, 3, 4)) if held is None else _mean_of_others(squares, held)
        loss = (error * loss_weight(self.scheduler, t, recipe.max_weight, recipe.min_weight)).mean()
        metrics = {"error": error.mean()}
        if recipe.trs.weight > 0:
            options = {name: value for name, value in vars(recipe.trs).items() if name != "weight"}
            metrics["trs"] = temporal_attention_loss(seen.attentions, num_frames, **options, generator=generator)
            loss = loss + recipe.trs.weight * metrics["trs"]
        if self.contrastive is not None:
            metrics["dc"] = self.contrastive(seen.hidden, num_frames, generator)
            loss = loss + recipe.dc.weight * metrics["dc"]
        if recipe.reg.weight > 0:
            metrics["reg"] = self._regularisation(mapped, t, text, predicted, generator)
            loss = loss + recipe.reg.weight * metrics["reg"]
        return {"loss": loss, **metrics}

    def _regularisation(
        self, mapped: Tensor, t: Tensor, text: Tensor, predicted: Tensor, generator: torch.Generator
    ) -> Tensor:
        """L_reg on a random subset of the frames, which the image model denoises one by one."""
        options, num_frames = self.recipe.reg, mapped.shape[2]
        count = num_frames if options.num_frames is None else min(options.num_frames, num_frames)
        if count < num_frames:
            chosen = torch.randperm(num_frames, generator=generator, device=generator.device)[:count].to(mapped.device)
            mapped, predicted = mapped[:, :, chosen], predicted[:, :, chosen]
        view = self._image_view[0].train(self.unet.training)
        if self.unet.is_gradient_checkpointing:
            view.enable_gradient_checkpointing()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not options.detach):
            image = view(
                rearrange(mapped, "b c f h w -> (b f) c h w"),
                repeat(t, "b -> (b f)", f=count),
                frame_context(text, count),
                return_dict=False,
            )[0]
        image = rearrange(image, "(b f) c h w -> b c f h w", f=count)
        steps = self.scheduler.config.num_train_timesteps
        return mapping_regularisation(predicted, image, t, steps, detach=options.detach)

    def _held(self, continuing: Tensor | None, video: Tensor) -> Tensor | None:
        """(B, 1, F, 1, 1): which frames of a batch (B, C, F, h, w) are held; None if all frames are alike."""
        if continuing is None or self.recipe.context_noise == 1 or not continuing.any():
            return None
        first = torch.arange(video.shape[2], device=video.device) < self.recipe.overlap
        return (continuing[:, None] & first).reshape(len(video), 1, -1, 1, 1)

    def _tokens(self, text: Tensor, continuing: Tensor | None, num_frames: int) -> Tensor | None:
        """The frame tokens of texts, if there are any; of an empty one, where a clip continues another."""
        if self.frame_tokens is None:
            return None
        tokens = self.frame_tokens(text)
        if continuing is not None and continuing.any():
            empty = self.frame_tokens(self.text_encoder(self.null_ids[None]).last_hidden_state)
            tokens = torch.where(continuing[:, None, None, None], empty, tokens)
        return tokens[:, :num_frames]

    def _text(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        drop = torch.rand(len(ids), generator=generator, device=ids.device) < self.recipe.drop_text
        with torch.no_grad():
            return self.text_encoder(torch.where(drop[:, None], self.null_ids, ids)).last_hidden_state


def build_contrastive(
    options: ContrastiveOptions, unet_config: Any, latent_size: tuple[int, int]
) -> ContrastiveLoss | None:
    """The contrastive loss for the middle block of a UNet and latents of a size (height, width); None without weight."""
    if options.weight <= 0:
        return None
    widths, (height, width) = unet_config["block_out_channels"], latent_size
    for _ in widths[1:]:  # every level halves by a convolution of stride 2, which rounds up
        height, width = (height + 1) // 2, (width + 1) // 2
    return ContrastiveLoss(
        widths[-1],
        (height, width),
        queue_size=options.queue_size,
        temperature=options.temperature,
        normalize=options.normalize,
        store=options.queue_store,
        in_batch=options.in_batch,
    )


def _mean_of_others(values: Tensor, held: Tensor) -> Tensor:
    """Means (B,) of values (B, C, F, h, w) over the frames that are not held."""
    free = (~held).to(values)
    return (values * free).sum((1, 2, 3, 4)) / free.expand_as(values).sum((1, 2, 3, 4))


def harivo_batches(recipe: HARIVORecipe, latents: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer) -> BatchSource:
    """Micro-batch k: drawn clips as latents out of (N, F, C, h, w), and their captions.

    Half the clips run backwards, where the world has words for it and what they say is not held out of training. The first
    clips are the continuing ones, see `HARIVORecipe`.
    """
    backwards, continuing = reversed_scenes(scenes), num_as_drawn(recipe.continuing, recipe.num_scenes)
    omit = SPEED_SAID if recipe.ways == "typical" else None

    def batch_at(index: int) -> Batch:
        size, draws = recipe.batch_size, batch_draws(recipe.seed, index)
        clips = torch.randint(0, len(latents), (size,), generator=draws).tolist()
        flips = (torch.rand(size, generator=draws) < 0.5).tolist()
        videos, captions = [], []
        for row, (clip, flip) in enumerate(zip(clips, flips, strict=True)):
            back = backwards[clip] if flip else None
            videos.append(latents[clip].flip(0) if back else latents[clip])
            captions.append(caption_clip(back or scenes[clip], index * size + row, None if clip < continuing else omit))
        return {
            "latents": torch.stack(videos).float(),
            "input_ids": tokenize(tokenizer, captions),
            "continuing": torch.tensor([clip < continuing for clip in clips]),
        }

    return batch_at
