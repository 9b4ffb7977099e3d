"""A second phase that is ours, not the paper's: the frame tokens learn to act on the image model as place words do.

The alignment (`harivo_alignment`) makes tokens that read like place words. Behind a caption that says "moving left" they
are not enough: the image model reads "left" as a place, too. So the frozen image model itself is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from diffusers import DDPMScheduler
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules import FrameTokenGenerator
from longvid.samplers.prediction import to_x0
from longvid.sprites import Scene, caption_clip
from longvid.sprites.captions import MOTION_PHRASES, SPEED_WORDS
from longvid.sprites.motion import track
from longvid.sprites.scene import DIRECTIONS
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws, draw_timesteps
from longvid.training.harivo_alignment import PLACE_WORDS
from longvid.training.loop import Batch, BatchSource, OptimizerOptions
from longvid.training.unet import loss_weight
from longvid.training.ways import SPEED_SAID, typical


@dataclass
class DistillationOptions:
    """The distillation of place words into the frame tokens; ours, not the paper's.

    Attributes:
        num_steps: Steps of the phase; 0, as in the paper, leaves it out.
        batch_size: Clips per micro-batch.
        frames_per_clip: Frames of each of them, drawn at random.
        drop_text: Share of empty captions, whose tokens learn to change nothing.
        pure_noise: Share of the samples at the highest level of noise, where sampling begins.
        timestep_power: How the other levels are drawn, see `draws.draw_timesteps`.
        words: How the places are said, see `harivo_alignment.PLACE_WORDS`.
        smoothing: What the tokens are averaged with over the frames when the phase is over, see
            `FrameTokenGenerator`: between two places there are no words, and unsmoothed tokens go from one to the next in
            jumps.
    """

    num_steps: int = 1100
    batch_size: int = 4
    frames_per_clip: int = 8
    drop_text: float = 0.1
    pure_noise: float = 0.3
    timestep_power: float = 8.0
    words: str = "grid"
    smoothing: float = 1.0
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(
            learning_rate=3e-3, lr_schedule="cosine", warmup_steps=50, ema_decay=0.0
        )
    )


def frame_captions(
    scene: Scene, caption: str, frames: Sequence[int], num_frames: int, words: str = "grid"
) -> list[str]:
    """What a clip's caption says of single frames: a straight motion is exchanged for the place on its typical way.

    Of "a red star moving right on a gray background" the first of 24 frames is "a red star at 0 5 on a gray background",
    or "at the left" with the words of the "thirds". Captions of other motions, whose places nobody can know, stay as they are.
    """
    [sprite] = scene.sprites
    if sprite.motion not in DIRECTIONS:
        return [caption] * len(frames)
    [way] = typical(scene, num_frames).sprites
    path, speeds = track(way, num_frames), "|".join(word for word in SPEED_WORDS.values() if word)
    motion = re.compile(rf"{MOTION_PHRASES[sprite.motion]}( ({speeds}))?")
    places = (PLACE_WORDS[words](path.x[frame].item(), path.y[frame].item()) for frame in frames)
    return [motion.sub(place, caption) for place in places]


class DistillationObjective(nn.Module):
    r"""A frame's tokens behind the clip's caption are to make the frozen image model predict what the frame's caption does.

    .. math:: \mathbb{E}\; w(t)\, \lVert \hat y(x_t, t, [c, t_\theta(c)_f]) - \hat y(x_t, t, c_f) \rVert^2

    c is the clip's caption, c_f that of frame f (`frame_captions`), t_theta the frame tokens and w `unet.loss_weight`. No
    picture is needed: x_t is noise of level t over the clean estimate that the image model makes of pure noise under c_f.

    The batch holds `input_ids` (B, N) of clip captions, and of each clip the numbers of some `frames` (B, f) and their
    `frame_ids` (B, f, N).

    Args:
        latent_shape: (C, h, w) of a picture.
    """

    def __init__(
        self,
        frame_tokens: FrameTokenGenerator,
        text_encoder: nn.Module,
        unet: nn.Module,
        scheduler: DDPMScheduler,
        options: DistillationOptions,
        latent_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.frame_tokens = frame_tokens.requires_grad_(True)
        self.text_encoder, self.unet = text_encoder.requires_grad_(False), unet.requires_grad_(False)
        self.scheduler, self.options, self.latent_shape = scheduler, options, latent_shape

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        count = batch["frames"].shape[1]
        with torch.no_grad():
            text = self.text_encoder(batch["input_ids"]).last_hidden_state
            wanted = self.text_encoder(rearrange(batch["frame_ids"], "b f n -> (b f) n")).last_hidden_state
            sample, t = self._noisy(wanted, generator)
            target = self.unet(sample, t, wanted, return_dict=False)[0]
        rows = torch.arange(len(text), device=text.device)[:, None]
        tokens = rearrange(self.frame_tokens(text)[rows, batch["frames"]], "b f k d -> (b f) k d")
        context = torch.cat([repeat(text, "b n d -> (b f) n d", f=count), tokens], dim=1)
        error = (self.unet(sample, t, context, return_dict=False)[0] - target).square().mean((1, 2, 3))
        return {"loss": (error * loss_weight(self.scheduler, t, max_weight=5.0)).mean(), "error": error.mean()}

    def _noisy(self, text: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noisy latents on the image model's own way to pictures of the texts, and their timesteps."""
        size, last = len(text), self.scheduler.config.num_train_timesteps - 1

        def draw() -> Tensor:
            return torch.randn(size, *self.latent_shape, generator=generator, device=text.device)

        pure = draw()
        highest = torch.full((size,), last, device=text.device)
        prediction = self.unet(pure, highest, text, return_dict=False)[0]
        clean = to_x0(prediction, pure, highest, self.scheduler)
        t = draw_timesteps(self.scheduler, size, self.options.timestep_power, generator)
        start = torch.rand(size, generator=generator, device=text.device) < self.options.pure_noise
        t = torch.where(start, highest, t)
        return self.scheduler.add_noise(clean, draw(), t), t  # type: ignore[arg-type]


def distillation_batches(
    options: DistillationOptions, scenes: list[Scene], tokenizer: CLIPTokenizer, num_frames: int
) -> BatchSource:
    """Micro-batch k: clip captions of scenes with one sprite, every second of a straight motion, and captions of frames.

    Raises:
        ValueError: if no scene has one sprite that moves straight.
    """
    alone = [scene for scene in scenes if len(scene.sprites) == 1]
    straight = [scene for scene in alone if scene.sprites[0].motion in DIRECTIONS]
    if not straight:
        raise ValueError("the distillation needs scenes with one sprite that moves straight; there is none")

    def batch_at(index: int) -> Batch:
        size, count = options.batch_size, min(options.frames_per_clip, num_frames)
        draws = batch_draws(options.seed, index)
        frames = torch.stack([torch.randperm(num_frames, generator=draws)[:count] for _ in range(size)])
        captions, of_frames = [], []
        for row, dropped in enumerate((torch.rand(size, generator=draws) < options.drop_text).tolist()):
            among = (alone, straight)[row % 2]
            scene = among[int(torch.randint(0, len(among), (), generator=draws))]
            captions.append("" if dropped else caption_clip(scene, index * size + row, SPEED_SAID))
            of_frames += frame_captions(scene, captions[-1], frames[row].tolist(), num_frames, options.words)
        frame_ids = rearrange(tokenize(tokenizer, of_frames), "(b f) n -> b f n", b=size)
        return {"input_ids": tokenize(tokenizer, captions), "frames": frames, "frame_ids": frame_ids}

    return batch_at
