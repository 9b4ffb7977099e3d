"""Stage three of the built-in world: the text-to-image UNet, trained on single frames with frame and clip captions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from longvid.sprites import MOTIONS, Scene, caption_clip, caption_frame
from longvid.sprites.captions import grid_words, place_words
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws
from longvid.training.loop import Batch, BatchSource, OptimizerOptions


@dataclass
class UNetRecipe:
    """What the UNet looks like and predicts, and how errors weigh; text is dropped now and then.

    `clip_captions` is the share of captions that are those of the frame's clip, `grid_places` the share of the others in
    which places are columns and rows of a grid (`sprites.captions.grid_words`) instead of words, `moments` the share of clip
    captions that also say where on the grid the sprite is in the frame.
    `prediction_type` is "epsilon" or "v_prediction"; for `max_weight` and `min_weight` see `loss_weight`, for `beta_end`
    `build_scheduler`.
    """

    channels: tuple[int, ...] = (64, 96)
    heads: tuple[int, ...] = (4, 6)
    layers_per_block: int = 1
    attention_levels: int | None = None
    norm_groups: int = 16
    sample_size: int = 8
    num_scenes: int = 5000
    num_frames: int = 14
    motions: tuple[str, ...] = MOTIONS
    batch_size: int = 32
    num_steps: int = 5500
    text_dropout: float = 0.1
    clip_captions: float = 0.35
    grid_places: float = 0.0
    moments: float = 0.0
    prediction_type: str = "v_prediction"
    max_weight: float = 5.0
    min_weight: float | None = None
    beta_end: float = 0.02
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(learning_rate=1.5e-3, lr_schedule="cosine", warmup_steps=200)
    )


def build_scheduler(beta_end: float = 0.02, prediction_type: str = "v_prediction") -> DDPMScheduler:
    r"""The noise schedule that a UNet learns: linear in the square root of beta, from 0.00085 to `beta_end`.

    Stable Diffusion ends at 0.012, where :math:`\sqrt{\bar\alpha}` is 0.068. A sprite covers so large a part of an 8 x 8
    latent that it can still be seen at that level: a network would learn where it is from the noisy latent and never from
    the text. The built-in world therefore ends at nearly pure noise: 0.02, where :math:`\sqrt{\bar\alpha}` is 0.016.
    """
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=beta_end,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,  # type: ignore[arg-type]
        clip_sample=False,
        steps_offset=1,
    )


def build_unet(recipe: UNetRecipe, latent_channels: int, text_width: int) -> UNet2DConditionModel:
    """A UNet with one level per entry of `channels`, and attention in the first `attention_levels` of them (None: all)."""
    levels = len(recipe.channels)
    attended = levels if recipe.attention_levels is None else recipe.attention_levels
    return UNet2DConditionModel(
        sample_size=recipe.sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",) * (levels - attended),
        up_block_types=("UpBlock2D",) * (levels - attended) + ("CrossAttnUpBlock2D",) * attended,
        block_out_channels=recipe.channels,
        layers_per_block=recipe.layers_per_block,
        attention_head_dim=recipe.heads,  # type: ignore[arg-type]
        cross_attention_dim=text_width,
        norm_num_groups=recipe.norm_groups,
        use_linear_projection=True,
    )


class UNetObjective(nn.Module):
    r"""Maps latents (B, C, h, w) and captions to the weighted denoising loss.

    .. math:: \mathbb{E}\; w(t)\, \lVert y - \hat y(x_t, t, c) \rVert^2

    where y is the noise or the velocity, as the scheduler says, and w is `loss_weight`.
    """

    def __init__(
        self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, scheduler: DDPMScheduler, recipe: UNetRecipe
    ) -> None:
        super().__init__()
        self.unet, self.scheduler, self.recipe = unet, scheduler, recipe
        self.text_encoder = text_encoder.requires_grad_(False)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        latents = batch["latents"]
        with torch.no_grad():
            prompt_embeds = self.text_encoder(batch["input_ids"]).last_hidden_state
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        steps = self.scheduler.config.num_train_timesteps
        t = torch.randint(0, steps, (len(latents),), generator=generator, device=latents.device)
        noisy = self.scheduler.add_noise(latents, noise, t)  # type: ignore[arg-type]
        predicted = self.unet(noisy, t, prompt_embeds, return_dict=False)[0]
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, t) if velocity else noise  # type: ignore[arg-type]
        error = (predicted - target).square().mean((1, 2, 3))
        weight = loss_weight(self.scheduler, t, self.recipe.max_weight, self.recipe.min_weight)
        return {"loss": (error * weight).mean(), "error": error.mean()}


def loss_weight(scheduler: DDPMScheduler, t: Tensor, max_weight: float, min_weight: float | None = None) -> Tensor:
    r"""The weight of the squared error of a prediction, such that the error of the clean estimate weighs no more than a limit.

    .. math:: \epsilon:\ \frac{\min(\mathrm{SNR} + \gamma_0, \gamma)}{\mathrm{SNR}} \qquad
        v:\ \frac{\min(\mathrm{SNR} + \gamma_0, \gamma)}{\mathrm{SNR} + 1}

    An error of noise is SNR times that of the clean estimate, an error of velocity SNR + 1 times. With
    :math:`\gamma_0 = 0`, the default for noise, the first is the min-SNR weight of Hang et al. (arXiv:2303.09556). With
    1, the default for velocity, the clean estimate weighs at least 1 however strong the noise: where nothing can be seen
    yet, text alone says what and where, and a weight of SNR would teach next to nothing there. Less than 1 leaves more
    of the training to details. An infinite limit and the default floor weigh all predictions alike.

    Args:
        max_weight: The limit :math:`\gamma`.
        min_weight: The floor :math:`\gamma_0`; None is the default of what the scheduler predicts.
    """
    snr = compute_snr(scheduler, t)
    velocity = scheduler.config.prediction_type == "v_prediction"
    floor = float(velocity) if min_weight is None else min_weight
    return (snr + floor).clamp(max=max_weight) / (snr + velocity)


def unet_batches(recipe: UNetRecipe, latents: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer) -> BatchSource:
    """Micro-batch k: frames drawn at random out of the latents (N, F, C, h, w), captioned as frames or as clips."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clip, frame = (torch.randint(0, n, (recipe.batch_size,), generator=draws) for n in latents.shape[:2])
        chance = torch.rand(recipe.batch_size, 2, generator=draws)
        finer = torch.rand(recipe.batch_size, generator=draws)
        captions = []
        for row in range(recipe.batch_size):
            scene, seed = scenes[clip[row]], index * recipe.batch_size + row
            if chance[row, 0] < recipe.text_dropout:
                captions.append("")
            elif chance[row, 1] < recipe.clip_captions:
                moment = int(frame[row]) if finer[row] < recipe.moments else None
                captions.append(caption_clip(scene, seed, frame=moment))
            else:
                places = grid_words if finer[row] < recipe.grid_places else place_words
                captions.append(caption_frame(scene, int(frame[row]), seed, places=places))
        return {"latents": latents[clip, frame].float(), "input_ids": tokenize(tokenizer, captions)}

    return batch_at
