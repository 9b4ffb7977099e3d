"""Stage two of the built-in world: a tiny CLIP that reads frames *and clips*, so that its text features know motion words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer

from longvid.sprites import MOTIONS, PASSING, caption_clip, caption_frame, draw, sample_scene, vocabulary
from longvid.training.loop import Batch, OptimizerOptions

CLIP_FRAMES = (0, 1, 2, 4)
"""The frames of a clip that the contrastive clip loss sees."""
MAX_TOKENS = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.!?'-"
IMAGE_MEAN, IMAGE_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass
class CLIPRecipe:
    """InfoNCE on (frame, frame caption) and (clip, clip caption) pairs, plus a loss that keeps every word readable."""

    width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    vision_width: int | None = None
    vision_layers: int = 2
    vision_heads: int = 4
    mlp_ratio: int = 3
    activation: str = "quick_gelu"
    image_size: int = 64
    patch_size: int = 8
    tokenizer: str | None = None
    num_frames: int = 48
    num_clips: int = 24
    num_steps: int = 800
    word_weight: float = 0.2
    seed: int = 0
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(
            learning_rate=1e-3, lr_schedule="cosine", warmup_steps=100, weight_decay=0.05, ema_decay=0.99
        )
    )


def build_tokenizer(
    words: Iterable[str] | None = None, letters: Iterable[str] = LETTERS, max_tokens: int = MAX_TOKENS
) -> CLIPTokenizer:
    """A CLIP tokenizer in which every word (default: of the world's grammar) is one token; others fall into letters.

    The end-of-text token has the highest id, which is where CLIP pools.
    """
    letters = list(letters)
    tokens = letters + [letter + "</w>" for letter in letters]
    merges: dict[tuple[str, str], int] = {}
    for word in sorted(vocabulary() if words is None else sorted(words), key=len):
        pieces = _apply(merges, word)
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
            tokens.append(pieces[0] + pieces[1])
            pieces = _apply(merges, word)
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),  # type: ignore[arg-type]
        model_max_length=max_tokens, closed_vocabulary=True, bos_token="<|startoftext|>",
        eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip


def _apply(rank: dict[tuple[str, str], int], word: str) -> list[str]:
    """Split a word as byte-pair encoding does with merges of these ranks: the earliest first, all its places at once."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        found = [(rank[pair], i) for i, pair in enumerate(zip(pieces, pieces[1:], strict=False)) if pair in rank]
        if not found:
            return pieces
        _, i = min(found)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def build_clip(recipe: CLIPRecipe, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A text tower as long as the tokenizer's texts, and an image tower, that meet in features of the text's width."""
    eos = cast(int, tokenizer.eos_token_id)
    text = {
        **_tower(recipe, recipe.width, recipe.text_layers, recipe.text_heads), "vocab_size": len(tokenizer),
        "max_position_embeddings": max_tokens(tokenizer), "eos_token_id": eos, "bos_token_id": eos - 1,
        "pad_token_id": eos,
    }  # fmt: skip
    vision = {
        **_tower(recipe, recipe.vision_width or recipe.width, recipe.vision_layers, recipe.vision_heads),
        "image_size": recipe.image_size, "patch_size": recipe.patch_size,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.width))


def _tower(recipe: CLIPRecipe, width: int, num_layers: int, num_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "intermediate_size": recipe.mlp_ratio * width, "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads, "hidden_act": recipe.activation, "projection_dim": recipe.width,
    }  # fmt: skip


class CLIPObjective(nn.Module):
    """The losses of `CLIPRecipe`; the clip head and the word reader are thrown away after training."""

    def __init__(self, clip: CLIPModel, recipe: CLIPRecipe) -> None:
        super().__init__()
        width = recipe.width
        self.clip, self.recipe = clip, recipe
        self.clip_head = nn.Sequential(
            nn.Linear(len(CLIP_FRAMES) * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.word_reader = nn.Linear(width, cast(CLIPTextConfig, clip.config.text_config).vocab_size)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        frames, clips, ids = batch["frames"], batch["clips"], batch["input_ids"]
        num_frames, num_clips = len(frames), len(clips)
        pixels = torch.cat([frames, clips.flatten(0, 1)])
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        of_frames = self.clip.visual_projection(pooled[:num_frames])
        of_clips = self.clip_head(pooled[num_frames:].unflatten(0, (num_clips, -1)).flatten(1))
        text = self.clip.text_model(input_ids=ids)
        of_text = self.clip.text_projection(text.pooler_output)
        scale = self.clip.logit_scale.clamp(max=4.6).exp()
        frame_loss, frame_hits = _contrast(of_frames, of_text[:num_frames], scale)
        clip_loss, clip_hits = _contrast(of_clips, of_text[num_frames:], scale)
        words = F.cross_entropy(self.word_reader(text.last_hidden_state).flatten(0, 1), ids.flatten())
        loss = frame_loss + clip_loss + self.recipe.word_weight * words
        return {"loss": loss, "frame": frame_hits, "clip": clip_hits, "words": words}


def _contrast(images: Tensor, texts: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE of matching rows and the share of images that find their text."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (logits.argmax(1) == target).float().mean()


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Captions to ids, padded to the tokenizer's length; a caption that is too long is an error, not a shorter caption."""
    length = max_tokens(tokenizer)
    ids = tokenizer(captions, padding="max_length", max_length=length, truncation=False).input_ids
    longest = max(range(len(ids)), key=lambda row: len(ids[row]))
    if len(ids[longest]) > length:
        raise ValueError(
            f"expected captions of at most {length - 2} tokens; {captions[longest]!r} has {len(ids[longest]) - 2}"
        )
    return torch.tensor(ids)


def max_tokens(tokenizer: CLIPTokenizer) -> int:
    """The number of tokens of a text, start and end included."""
    return min(tokenizer.model_max_length, 512)  # a tokenizer that states no length has an astronomical one


def normalise_pixels(frames: Tensor) -> Tensor:
    """[0, 1] pixels (..., 3, H, W) to the statistics CLIP image towers are fed with."""
    mean, std = (torch.tensor(v, device=frames.device)[:, None, None] for v in (IMAGE_MEAN, IMAGE_STD))
    return (frames - mean) / std


def clip_batches(recipe: CLIPRecipe, tokenizer: CLIPTokenizer):
    """Micro-batch k: freshly drawn frames and clips with captions that leave attributes out at random."""

    def batch_at(index: int) -> Batch:
        size = recipe.num_frames + recipe.num_clips
        seeds = [recipe.seed * 2**40 + index * size + i for i in range(size)]
        scenes = [sample_scene(seed, motions=MOTIONS + PASSING) for seed in seeds]
        of_frames, of_clips = scenes[: recipe.num_frames], scenes[recipe.num_frames :]
        frames = draw(of_frames, 1)[:, :, 0]
        clips = draw(of_clips, max(CLIP_FRAMES) + 1)[:, :, list(CLIP_FRAMES)].transpose(1, 2)
        captions = [caption_frame(scene, 0, seed) for scene, seed in zip(of_frames, seeds, strict=False)]
        captions += [
            caption_clip(scene, seed) for scene, seed in zip(of_clips, seeds[recipe.num_frames :], strict=True)
        ]
        return {
            "frames": normalise_pixels(frames), "clips": normalise_pixels(clips), "input_ids": tokenize(tokenizer, captions)
        }  # fmt: skip

    return batch_at
