"""Stage one of the built-in world: the autoencoder, trained on drawn frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from longvid.sprites import MOTIONS, PASSING, SIZE, Scene, draw, draw_background, sample_scene
from longvid.training.loop import Batch, BatchSource, OptimizerOptions


@dataclass
class VAERecipe:
    """Reconstruction: L1 (heavier on sprites and their rims), L1 of gradients, L2, and a small KL term.

    The first `crop_batches` micro-batches are crops of half the side around sprites, four times as many as `batch_size`, at
    the same cost; the rest are whole frames.
    """

    channels: tuple[int, ...] = (16, 32, 64, 96)
    latent_channels: int = 8
    layers_per_block: int = 1
    norm_groups: int = 8
    sample_size: int = 64
    batch_size: int = 10
    num_steps: int = 2600
    crop_batches: int = 3600
    sprite_weight: float = 3.0
    gradient_weight: float = 1.0
    l2_weight: float = 4.0
    kl_weight: float = 1e-4
    normalise_frames: int = 2000
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(
            learning_rate=2e-3, lr_schedule="cosine", warmup_steps=200, weight_decay=0.0
        )
    )


def build_vae(recipe: VAERecipe) -> AutoencoderKL:
    """A small AutoencoderKL with downsampling 2^(levels - 1)."""
    levels = len(recipe.channels)
    blocks: dict[str, Any] = {  # diffusers annotates tuples of one entry
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": recipe.channels,
    }
    return AutoencoderKL(
        **blocks,
        layers_per_block=recipe.layers_per_block,
        latent_channels=recipe.latent_channels,
        norm_num_groups=recipe.norm_groups,
        sample_size=recipe.sample_size,
        scaling_factor=1.0,
    )


class VAEObjective(nn.Module):
    """Maps frames (B, 3, H, W) in [-1, 1] and sprite masks (B, 1, H, W) to the losses of `VAERecipe`."""

    def __init__(self, vae: AutoencoderKL, recipe: VAERecipe) -> None:
        super().__init__()
        self.vae, self.recipe = vae, recipe

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        frames, weight = batch["frames"], 1 + self.recipe.sprite_weight * batch["mask"]
        moments = self.vae._encode(frames)
        mean, logvar = moments.chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        made = self.vae._decode(mean + (0.5 * logvar).exp() * noise, return_dict=False)[0]
        error = made - frames
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        l1, l2 = (error.abs() * weight).mean(), error.square().mean()
        slope = (error.diff(dim=-1).abs() * weight[..., 1:]).mean() + (
            error.diff(dim=-2).abs() * weight[..., 1:, :]
        ).mean()
        r = self.recipe
        loss = l1 + r.gradient_weight * slope + r.l2_weight * l2 + r.kl_weight * kl
        return {"loss": loss, "l1": l1, "l2": l2, "kl": kl}


def frame_batches(recipe: VAERecipe) -> BatchSource:
    """Micro-batch k: freshly drawn frames (or crops), never the same twice, with their dilated sprite masks."""
    most = 4 * recipe.batch_size

    def batch_at(index: int) -> Batch:
        crops = index < recipe.crop_batches
        seeds = [recipe.seed * 2**40 + index * most + i for i in range(most if crops else recipe.batch_size)]
        scenes = [sample_scene(seed, motions=MOTIONS + PASSING, two_sprites=0.4) for seed in seeds]
        frames = draw(scenes, 1)[:, :, 0]
        empty = torch.stack([draw_background(scene) for scene in scenes])
        mask = ((frames - empty).abs().amax(1, keepdim=True) > 0.02).float()
        both = torch.cat([frames * 2 - 1, F.max_pool2d(mask, 5, stride=1, padding=2)], dim=1)
        if crops:
            both = torch.stack([_crop(x, scene) for x, scene in zip(both, scenes, strict=True)])
        return {"frames": both[:, :3], "mask": both[:, 3:]}

    return batch_at


def _crop(picture: Tensor, scene: Scene) -> Tensor:
    """Half the side, on the grid of latent pixels, around the sprite drawn last."""
    side, sprite = SIZE // 2, scene.sprites[-1]
    left, top = (min(max(round((p - side / 2) / 8) * 8, 0), SIZE - side) for p in (sprite.x, sprite.y))
    return picture[:, top : top + side, left : left + side]


@torch.no_grad()
def fold_normalisation(vae: AutoencoderKL, frames: Tensor) -> None:
    r"""Make every latent channel mean 0 and deviation 1 over `frames` by folding the affine map into the 1x1 convolutions.

    .. math:: z' = (z - \mu) / \sigma, \qquad \text{decode}(z') = \text{decode}_{old}(\sigma z' + \mu)

    Afterwards `scaling_factor = 1` is right and the decoded picture is what it was.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in frames.split(64)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = mean.numel()
    quant, post = (cast(Any, layer) for layer in (vae.quant_conv, vae.post_quant_conv))
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]


@torch.no_grad()
def psnr(vae: AutoencoderKL, num_frames: int = 256, first_seed: int = 10**9) -> float:
    """Mean peak signal-to-noise ratio in dB over held-out frames, picture range [0, 1]."""
    scenes = [sample_scene(first_seed + i, split="held_out") for i in range(num_frames)]
    frames = draw(scenes, 1, start=5)[:, :, 0]
    made = torch.cat([vae.decode(vae.encode(f * 2 - 1).latent_dist.mean).sample for f in frames.split(64)])
    error = ((made.clamp(-1, 1) + 1) / 2 - frames).square().mean((1, 2, 3))
    return (-10 * error.log10()).mean().item()
