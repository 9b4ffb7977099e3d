"""A first phase that is ours, not the paper's: the frame tokens learn to say where the sprite is in every frame.

A frozen image model can be steered frame by frame only through what its text can say about one frame. Under the denoising
loss alone, frame tokens get almost no gradient that tells one direction of motion from another: at most levels of noise
the noisy video itself shows the direction. So they are first taught to be the embeddings of place words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules import FrameTokenGenerator
from longvid.sprites import Scene, caption_clip, caption_frame
from longvid.sprites.captions import Omissions, grid_words, place_words
from longvid.sprites.scene import DIRECTIONS
from longvid.training.clip import tokenize
from longvid.training.draws import batch_draws
from longvid.training.loop import Batch, BatchSource, OptimizerOptions
from longvid.training.ways import SPEED_SAID, typical

TARGETS = ("embeddings", "attention")
PLACES = ("clip", "typical")
PLACE_WORDS = {"thirds": place_words, "grid": grid_words}
"""How a frame's caption says where the sprite is: in words for nine places, or as column and row of a 10 x 10 grid."""
_NO_BACKGROUND = Omissions(size=0, color=0, shape=0, motion=0, speed=0, background=1)


@dataclass
class AlignmentOptions:
    """The alignment of the frame tokens with place words; ours, not the paper's.

    Attributes:
        num_steps: Steps of the phase; 0, as in the paper, leaves it out.
        target: "embeddings" is the error of the tokens themselves, "attention" that of the keys and values that the
            frozen cross-attention makes of them.
        places: Which places are to be said: those of the "clip", or "typical" ones, see `ways.typical`.
        words: How they are said, see `PLACE_WORDS`.
        batch_size: Clips per micro-batch.
    """

    num_steps: int = 1000
    target: str = "attention"
    places: str = "typical"
    words: str = "grid"
    batch_size: int = 16
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(
            learning_rate=1.2e-2, lr_schedule="cosine", warmup_steps=50, ema_decay=0.0
        )
    )


class AlignmentObjective(nn.Module):
    r"""The relative squared error of the frame tokens against the embedded place words.

    .. math:: \frac{\lVert R\,(t_\theta(c) - e) \rVert^2}{\lVert R\,e \rVert^2}

    e are the embeddings of the last K words of "a red star at 3 5", the caption of each frame up to its place.
    R is the identity or, with the target "attention", the key and value projections of all text layers of the frozen UNet:
    the tokens end in a SiLU and cannot reach values below -0.28, but what is read of them can still be right.

    The batch holds `input_ids` (B, N) of clip captions and `place_ids` (B, F, N), in which the first `end_id` ends the text.
    """

    reader: Tensor | None

    def __init__(
        self, frame_tokens: FrameTokenGenerator, text_encoder: nn.Module, unet: nn.Module, *, target: str, end_id: int
    ) -> None:
        super().__init__()
        self.frame_tokens = frame_tokens.requires_grad_(True)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.register_buffer("reader", text_reader(unet) if target == "attention" else None, persistent=False)
        self.end_id = end_id

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            text = self.text_encoder(batch["input_ids"]).last_hidden_state
        tokens = self.frame_tokens(text)
        expected = self._place_words(batch["place_ids"], tokens.shape[2])
        error, size = tokens - expected, expected
        metrics = {"embedding_error": error.square().mean() / size.square().mean()}
        if self.reader is not None:
            error, size = error @ self.reader.T, size @ self.reader.T
        return {"loss": error.square().mean() / size.square().mean(), **metrics}

    @torch.no_grad()
    def _place_words(self, ids: Tensor, count: int) -> Tensor:
        """Embeddings of the last `count` words of texts (B, F, N), (B, F, count, D)."""
        different, place = ids.flatten(0, 1).unique(dim=0, return_inverse=True)
        embedded = self.text_encoder(different).last_hidden_state
        end = (different == self.end_id).int().argmax(dim=1)
        words = end[:, None] - count + torch.arange(count, device=ids.device)
        picked = embedded[torch.arange(len(different), device=ids.device)[:, None], words]
        return picked[place].unflatten(0, ids.shape[:2])


def text_reader(unet: nn.Module) -> Tensor:
    """All key and value projections of a UNet's text layers, one below the other, (rows, D)."""
    layers: list[Any] = [
        layer for name, layer in unet.named_modules() if ".attentions." in name and name.endswith(".attn2")
    ]
    weights = [projection.weight for layer in layers for projection in (layer.to_k, layer.to_v)]
    return torch.cat(weights).detach().float().clone()


def alignment_batches(
    options: AlignmentOptions, scenes: list[Scene], tokenizer: CLIPTokenizer, num_frames: int
) -> BatchSource:
    """Micro-batch k: clip captions of scenes with one sprite, and the captions of all their frames up to the place.

    Typical places are those of straight motions, so with them all clips move straight.

    Raises:
        ValueError: if there is no such scene.
    """
    any_motion = options.places == "clip"
    scenes = [s for s in scenes if len(s.sprites) == 1 and (any_motion or s.sprites[0].motion in DIRECTIONS)]
    if not scenes:
        kind = "one sprite" if any_motion else "one sprite that moves straight"
        raise ValueError(f"the alignment needs scenes with {kind}; there is none")

    @cache
    def places(clip: int) -> Tensor:
        scene = typical(scenes[clip], num_frames) if options.places == "typical" else scenes[clip]
        words = PLACE_WORDS[options.words]
        captions = [caption_frame(scene, frame, 0, _NO_BACKGROUND, places=words) for frame in range(num_frames)]
        return tokenize(tokenizer, captions).to(torch.int32)

    def batch_at(index: int) -> Batch:
        size, draws = options.batch_size, batch_draws(options.seed, index)
        chosen = torch.randint(0, len(scenes), (size,), generator=draws).tolist()
        omit = SPEED_SAID if options.places == "typical" else None
        captions = [caption_clip(scenes[clip], index * size + row, omit) for row, clip in enumerate(chosen)]
        return {
            "input_ids": tokenize(tokenizer, captions),
            "place_ids": torch.stack([places(clip) for clip in chosen]).long(),
        }

    return batch_at
