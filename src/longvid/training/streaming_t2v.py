"""The StreamingT2V recipe: CAM on a video base, then CAM and APM with the temporal layers at rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules import (
    AppearancePreservationModule,
    ConditionalAttentionModule,
    FrameConditioning,
    VideoUNet,
    clip_pixels,
)
from longvid.pipelines.chunk_predictor import ChunkPredictor
from longvid.sprites import MOTIONS, Scene, caption_clip, draw
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws, draw_timesteps
from longvid.training.latents import reversed_scenes
from longvid.training.loop import Batch, BatchSource, OptimizerOptions
from longvid.training.video_base import weighted_error

TEMPORAL = ("transformer_in", "temp_attentions", "temp_convs")
"""Parts of the UNet that stay as they are in the second stage."""


@dataclass
class StageOptions:
    """Length and optimizer of one stage; 0 steps leave it out."""

    num_steps: int = 1000
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(learning_rate=1e-3, lr_schedule="cosine", warmup_steps=100)
    )
    seed: int = 0


@dataclass
class StreamingT2VRecipe:
    """How CAM and APM learn: which frames of a clip are what, and what is dropped.

    Of a clip of `anchor_window` + `chunk_size` frames, the first `anchor_window` hold the anchor, drawn at random; the
    others are to be denoised, and their first `overlap` are the context (the paper: 1-16, 17-32, 17-24). Without
    `train_spatial_layers` the second stage leaves the whole UNet as it is, so that models of one base can share it. For
    `awake_start` see `wake`, for `max_weight` and `min_weight` see `unet.loss_weight`, for
    `timestep_power` `draws.draw_timesteps`.
    """

    chunk_size: int = 16
    overlap: int = 8
    anchor_window: int = 16
    frame_encoder_widths: tuple[int, ...] = (16, 32, 48, 64)
    num_image_tokens: int = 4
    image_inner_dim: int = 128
    drop_text: float = 0.05
    drop_anchor: float = 0.05
    drop_both: float = 0.05
    max_weight: float = 5.0
    min_weight: float | None = 0.5
    timestep_power: float = 0.0
    num_scenes: int = 5000
    motions: tuple[str, ...] = MOTIONS
    batch_size: int = 8
    seed: int = 0
    train_spatial_layers: bool = True
    awake_start: bool = False
    cam: StageOptions = field(default_factory=lambda: StageOptions(num_steps=1000))
    apm: StageOptions = field(default_factory=lambda: StageOptions(num_steps=500))

    @property
    def clip_frames(self) -> int:
        """Frames of a sample."""
        return self.anchor_window + self.chunk_size


@torch.no_grad()
def wake(cam: nn.Module) -> None:
    r"""Start a new CAM where it soon learns to look; it still adds nothing, since P_out of the mergers stays zero.

    .. math:: P_{in} = W_q = W_k = W_v = W_o = I, \quad W_{E_{cond}, last} \sim \mathrm{Glorot}

    The branch is a copy of the UNet's encoder and sees the same noisy latents, so its features of a frame are at first
    those of the UNet: with identities, a frame of the chunk attends to its own context frame from the first step on,
    which drawn projections have to find out. And the frames reach the features at once, where the paper's zero
    convolution holds them back until the mergers, themselves at zero, have moved.

    Raises:
        ValueError: if the module is not CAM.
    """
    if not isinstance(cam, ConditionalAttentionModule):
        raise ValueError(f"awake_start=true is for a ConditionalAttentionModule; got {type(cam).__name__}")
    nn.init.xavier_uniform_(cam.frame_encoder.conv_out.weight)
    mergers: list[Any] = [*cam.skip_mergers, cam.mid_merger]
    for merger in mergers:
        attention = merger.attention
        for layer in (merger.proj_in, attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
            nn.init.eye_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def train_cam(unet: VideoUNet, cam: nn.Module, apm: nn.Module | None) -> None:
    """Stage one: only what conditions the UNet on frames learns."""
    for part, learns in ((unet, False), (cam, True), (apm, False)):
        if part is not None:
            part.requires_grad_(learns)


def train_memories(unet: VideoUNet, cam: nn.Module, apm: nn.Module | None) -> None:
    """Stage two around a UNet at rest: what conditions it on frames and on the anchor learns."""
    for part, learns in ((unet, False), (cam, True), (apm, True)):
        if part is not None:
            part.requires_grad_(learns)


def train_cam_and_apm(unet: VideoUNet, cam: nn.Module, apm: nn.Module | None) -> None:
    """Stage two: everything learns but the UNet's temporal layers."""
    train_memories(unet, cam, apm)
    unet.requires_grad_(True)
    for name, parameter in unet.named_parameters():
        if any(part in TEMPORAL for part in name.split(".")):
            parameter.requires_grad_(False)


class StreamingT2VObjective(nn.Module):
    r"""The denoising loss of a chunk that continues given frames.

    .. math:: \mathbb{E}\; w(t)\, \lVert y - \hat y(x_t, t, c_{text}, v^{1:F_{cond}}, a) \rVert^2

    with the text, the anchor a or both dropped now and then; the context frames v never are.

    The batch holds `latents` (B, C, F, h, w) of the chunk, `context` (B, 3, F_cond, H, W) and `anchor` (B, 3, H, W)
    pixels in [-1, 1], and `input_ids` (B, N). What learns is what requires gradients: `train_cam`, `train_cam_and_apm`.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 4 and Appendix.
    """

    null_ids: Tensor

    def __init__(
        self,
        unet: VideoUNet,
        cam: FrameConditioning,
        apm: AppearancePreservationModule | None,
        scheduler: DDPMScheduler,
        recipe: StreamingT2VRecipe,
        *,
        text_encoder: nn.Module,
        image_encoder: nn.Module | None,
        null_ids: Tensor,
    ) -> None:
        super().__init__()
        self.unet, self.cam, self.apm, self.scheduler, self.recipe = unet, cam, apm, scheduler, recipe
        self.was_open = apm is not None and apm.is_open
        self.text_encoder = text_encoder.requires_grad_(False)
        self.image_encoder = None if image_encoder is None else image_encoder.requires_grad_(False)
        self.register_buffer("null_ids", null_ids, persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        latents, r = batch["latents"], self.recipe
        chance = torch.rand(len(latents), generator=generator, device=latents.device)
        both = chance < r.drop_both
        no_text = both | ((chance >= r.drop_both) & (chance < r.drop_both + r.drop_text))
        no_anchor = both | (chance >= 1 - r.drop_anchor)
        with torch.no_grad():
            ids = torch.where(no_text[:, None], self.null_ids, batch["input_ids"])
            text = self.text_encoder(ids).last_hidden_state
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        t = draw_timesteps(self.scheduler, len(latents), r.timestep_power, generator)
        conditions = {
            "text": text,
            "context": self._contexts(text, batch["anchor"], no_anchor),
            "frames": self._encoded(batch),
        }
        predict = ChunkPredictor(self.unet, self.cam, branches=[conditions], weights=lambda: (1.0, 1.0))
        noisy = self.scheduler.add_noise(latents, noise, t)  # type: ignore[arg-type]
        return weighted_error(predict.conditional(noisy, t, conditions), latents, noise, t, self.scheduler, r)

    def _encoded(self, batch: Batch) -> Tensor:
        frames = (
            batch["context"] if self.cam.conditions_on == "pixels" else batch["latents"][:, :, : self.recipe.overlap]
        )
        return self.cam.encode_frames(frames, num_frames=self.recipe.chunk_size)

    def _contexts(self, text: Tensor, anchor: Tensor, blank: Tensor) -> Any:
        if self.apm is None or not (self.was_open or next(self.apm.parameters()).requires_grad):  # it adds nothing
            return text
        pixels = torch.where(blank[:, None, None, None], torch.zeros_like(anchor), anchor)
        encoder: Any = self.image_encoder
        with torch.no_grad():
            embeds = encoder(clip_pixels(pixels, encoder.config.image_size)).image_embeds
        return self.apm(text, embeds)


def drawn_chunks(
    recipe: StreamingT2VRecipe, latents: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer
) -> BatchSource:
    """Micro-batch k: chunks out of the latents (N, F, C, h, w) of drawn clips, with the pixels of context and anchor.

    Half the clips run backwards, where the world has words for it and what they say is not held out of training.
    """
    backwards, window = reversed_scenes(scenes), recipe.anchor_window
    context = slice(window, window + recipe.overlap)

    def batch_at(index: int) -> Batch:
        size, draws = recipe.batch_size, batch_draws(recipe.seed, index)
        clips = torch.randint(0, len(latents), (size,), generator=draws).tolist()
        anchors = torch.randint(0, window, (size,), generator=draws)
        flips = (torch.rand(size, generator=draws) < 0.5).tolist()
        pixels = draw([scenes[clip] for clip in clips], recipe.clip_frames) * 2 - 1
        chunks, captions = [], []
        for row, (clip, flip) in enumerate(zip(clips, flips, strict=True)):
            back = backwards[clip] if flip else None
            frames = latents[clip, : recipe.clip_frames]
            if back is not None:
                frames, pixels[row] = frames.flip(0), pixels[row].flip(1)
            chunks.append(frames[window:].float())
            captions.append(caption_clip(back or scenes[clip], index * size + row))
        return {
            "latents": torch.stack(chunks).transpose(1, 2),
            "context": pixels[:, :, context].contiguous(),
            "anchor": pixels[torch.arange(size), :, anchors],
            "input_ids": tokenize(tokenizer, captions),
        }

    return batch_at
