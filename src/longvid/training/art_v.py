"""The ART-V recipe: one frame from its references, its anchor and the text, each dropped now and then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules import AnchoredUNet, MaskedDiffusionModel, ReferenceConditions
from longvid.samplers import alpha_bar, augment, from_epsilon
from longvid.sprites import MOTIONS, Scene, caption_clip
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws, draw_timesteps
from longvid.training.latents import reversed_scenes
from longvid.training.loop import Batch, BatchSource, OptimizerOptions
from longvid.training.unet import loss_weight


@dataclass
class ARTVRecipe:
    """How ART-V learns: what the networks look like, what is dropped, how far back the anchor lies.

    `beta_end` is the end of the noise schedule, see `unet.build_scheduler`; None keeps the schedule of the image model.
    `timestep_power` draws t with a density that grows as its power, 0 is uniform; for `max_weight` and `min_weight` see
    `unet.loss_weight`. `motion_weights` says how much more often than others the
    drawn clips of a motion come up, by the first sprite's, such as `{"circling": 2.0}`.
    """

    mask_channels: tuple[int, ...] = (16, 32)
    mask_heads: tuple[int, ...] = (1, 2)
    static_noise: str = "scaled"
    anchor_pos: str = "sincos"
    mask_bias_init: float | None = None
    noise_level_max: int = 200
    drop_references: float = 0.1
    drop_anchor: float = 0.1
    drop_text: float = 0.1
    anchor_window: int = 10
    first_frames: float = 0.2
    second_frames: float = 0.3
    timestep_power: float = 0.0
    max_weight: float = 5.0
    min_weight: float | None = None
    motion_weights: dict[str, float] = field(default_factory=dict)
    beta_end: float | None = 0.02
    num_scenes: int = 5000
    num_frames: int = 14
    motions: tuple[str, ...] = MOTIONS
    batch_size: int = 32
    num_steps: int = 3600
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(learning_rate=1e-3, lr_schedule="cosine", warmup_steps=200)
    )


def build_networks(recipe: ARTVRecipe, unet: UNet2DConditionModel) -> tuple[AnchoredUNet, AnchoredUNet]:
    """The noise network, grown from an image UNet, and a smaller mask network at random."""
    new, new_mask = network_options(recipe)
    mask = AnchoredUNet.from_config({**unet.config, "out_channels": 1, **new_mask})
    return AnchoredUNet.from_unet(unet, **new), cast(AnchoredUNet, mask)


def network_options(recipe: ARTVRecipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the noise network and the mask network have beyond the image UNet they are grown from."""
    shared = {"anchor_pos": recipe.anchor_pos}
    mask = {
        "block_out_channels": recipe.mask_channels,
        "attention_head_dim": recipe.mask_heads,
        "mask_bias_init": recipe.mask_bias_init,
    }
    return {**shared, "adapter_zero_init": False}, {**shared, **mask}


class ARTVObjective(nn.Module):
    r"""The denoising loss of Eq. 4 on the masked prediction of Eq. 7, with the conditions dropped and corrupted as in training.

    The error is that of what `scheduler` says the UNet predicts, noise or velocity.

    The batch holds `target` (B, C, h, w), `references` (B, 2, C, h, w) newest first, `anchor` (B, C, h, w), `first` (B,) where
    a frame has no history, and either `prompt_embeds` (B, N, D) or `input_ids` (B, N) for `text_encoder`; `null_embeds`
    stand in for dropped text in the former case.
    """

    null_ids: Tensor  # where there is a text encoder

    def __init__(
        self,
        unet: AnchoredUNet,
        mask_network: AnchoredUNet | None,
        scheduler: DDPMScheduler,
        recipe: ARTVRecipe,
        text_encoder: nn.Module | None = None,
        null_ids: Tensor | None = None,
    ) -> None:
        super().__init__()
        options = {"static_noise": recipe.static_noise, "prediction_type": scheduler.config.prediction_type}
        self.model = MaskedDiffusionModel(unet, mask_network, **options)
        self.scheduler, self.recipe = scheduler, recipe
        self.text_encoder = None if text_encoder is None else text_encoder.requires_grad_(False)
        self.register_buffer("null_ids", null_ids, persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        target, size = batch["target"], len(batch["target"])
        device, r = target.device, self.recipe
        chance = torch.rand(3, size, generator=generator, device=device)
        text = self._text(batch, chance[0] < r.drop_text)
        level = torch.randint(0, r.noise_level_max + 1, (size,), generator=generator, device=device)
        blank_references, blank_anchor = (chance[1] < r.drop_references) | batch["first"], chance[2] < r.drop_anchor
        blank_anchor = blank_anchor | batch["first"]
        history = torch.cat([batch["references"], batch["anchor"][:, None]], dim=1)
        noisy = augment(history, level, self.scheduler.alphas_cumprod.to(device), generator=generator)
        keep_references = (~blank_references).to(target.dtype)[:, None, None, None]
        keep_anchor = (~blank_anchor).to(target.dtype)[:, None, None, None]
        conditions = ReferenceConditions(
            references=noisy[:, :2].flatten(1, 2) * keep_references,
            static_reference=batch["references"][:, 0] * keep_references,
            anchor=noisy[:, 2] * keep_anchor,
            noise_level=level,
        )
        noise = torch.randn(target.shape, generator=generator, device=device)
        t = draw_timesteps(self.scheduler, size, r.timestep_power, generator)
        sample = self.scheduler.add_noise(target, noise, t)  # type: ignore[arg-type]
        out = self.model(sample, t, text, conditions=conditions, alpha_bar=alpha_bar(self.scheduler, t))
        predicted, true = (from_epsilon(value, sample, t, self.scheduler) for value in (out.noise, noise))
        error = (predicted - true).square().mean((1, 2, 3))
        loss = (error * loss_weight(self.scheduler, t, r.max_weight, r.min_weight)).mean()
        metrics = {"loss": loss, "error": error.mean()}
        return metrics if out.mask is None else {**metrics, "mask": out.mask.mean()}

    def _text(self, batch: Batch, drop: Tensor) -> Tensor:
        if self.text_encoder is None:
            return torch.where(drop[:, None, None], batch["null_embeds"], batch["prompt_embeds"])
        ids = torch.where(drop[:, None], self.null_ids, batch["input_ids"])
        with torch.no_grad():
            return self.text_encoder(ids).last_hidden_state


def art_v_batches(recipe: ARTVRecipe, latents: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer) -> BatchSource:
    """Micro-batch k: frames with their two predecessors and an anchor out of the latents (N, F, C, h, w) of drawn clips.

    Half the clips run backwards, where the world has words for it and what they say is not held out of training. The
    frame after the first, where only the text knows the motion, comes up `second_frames` of the time.
    """
    num_clips, num_frames = latents.shape[:2]
    backwards = reversed_scenes(scenes)
    weights = torch.tensor([recipe.motion_weights.get(scene.sprites[0].motion, 1.0) for scene in scenes])

    def batch_at(index: int) -> Batch:
        size = recipe.batch_size
        draws = batch_draws(recipe.seed, index)
        if recipe.motion_weights:
            clips = torch.multinomial(weights, size, replacement=True, generator=draws)
        else:
            clips = torch.randint(0, num_clips, (size,), generator=draws)
        frames = torch.randint(2, num_frames, (size,), generator=draws)
        chance = torch.rand(4, size, generator=draws)
        first, second = chance[0] < recipe.first_frames, chance[0] > 1 - recipe.second_frames
        frames = torch.where(second, 1, frames)
        flip = (chance[1] < 0.5) & torch.tensor([backwards[clip] is not None for clip in clips.tolist()])
        window = frames.clamp(max=recipe.anchor_window)
        anchors = frames - 1 - (chance[2] * window).long()
        # A clip may start anywhere: this many of its frames are not looked at.
        shift = (chance[3] * (num_frames - frames)).long()
        positions = torch.stack([frames, frames - 1, (frames - 2).clamp(min=0), anchors]) + shift
        positions = torch.where(flip, num_frames - 1 - positions, positions)
        picked = latents[clips, positions].float()
        captions = []
        for row, clip in enumerate(clips.tolist()):
            scene = backwards[clip] if flip[row] else scenes[clip]
            captions.append(caption_clip(scene, index * size + row))  # type: ignore[arg-type]
        return {
            "target": picked[0],
            "references": picked[1:3].transpose(0, 1),
            "anchor": picked[3],
            "first": first,
            "input_ids": tokenize(tokenizer, captions),
        }

    return batch_at
