"""Stage two of the built-in world: a tiny CLIP that reads frames *and clips*, so that its text features know motion words."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from longvid.sprites import MOTIONS, PASSING, caption_clip, caption_frame, draw, sample_scene, vocabulary
from longvid.training.loop import Batch, OptimizerOptions

CLIP_FRAMES = (0, 1, 2, 4)
"""The frames of a clip that the contrastive clip loss sees."""
MAX_TOKENS = 32
IMAGE_MEAN, IMAGE_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass
class CLIPRecipe:
    """InfoNCE on (frame, frame caption) and (clip, clip caption) pairs, plus a loss that keeps every word readable."""

    width: int = 128
    text_layers: int = 2
    vision_layers: int = 2
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


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which every word of the world's grammar is one token; other words fall into letters.

    The end-of-text token has the highest id, which is where CLIP pools.
    """
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,.!?'-")
    tokens = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in sorted(vocabulary(), key=len):
        pieces = _apply(merges, word)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            tokens.append(pieces[0] + pieces[1])
            pieces = _apply(merges, word)
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=MAX_TOKENS,
        bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip


def _apply(merges: list[tuple[str, str]], word: str) -> list[str]:
    """Split a word as byte-pair encoding with these merges does: the earliest merge first, all its places at once."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    rank = {pair: index for index, pair in enumerate(merges)}
    while True:
        found = [(rank[pair], i) for i, pair in enumerate(zip(pieces, pieces[1:], strict=False)) if pair in rank]
        if not found:
            return pieces
        _, i = min(found)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def build_clip(recipe: CLIPRecipe, tokenizer: CLIPTokenizer) -> CLIPModel:
    """Text tower `width` x `text_layers` over 32 tokens, image tower on 8 x 8 patches of 64 x 64 pixels."""
    shared = {"hidden_size": recipe.width, "intermediate_size": 3 * recipe.width, "num_attention_heads": 4}
    eos = tokenizer.eos_token_id
    text = {
        **shared, "num_hidden_layers": recipe.text_layers, "vocab_size": len(tokenizer), "projection_dim": recipe.width,
        "max_position_embeddings": MAX_TOKENS, "eos_token_id": eos, "bos_token_id": eos - 1, "pad_token_id": eos,
    }  # fmt: skip
    vision = {
        **shared, "num_hidden_layers": recipe.vision_layers, "image_size": 64, "patch_size": 8, "projection_dim": recipe.width
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.width))


class CLIPObjective(nn.Module):
    """The losses of `CLIPRecipe`; the clip head and the word reader are thrown away after training."""

    def __init__(self, clip: CLIPModel, recipe: CLIPRecipe) -> None:
        super().__init__()
        width = recipe.width
        self.clip, self.recipe = clip, recipe
        self.clip_head = nn.Sequential(nn.Linear(len(CLIP_FRAMES) * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.word_reader = nn.Linear(width, clip.config.text_config.vocab_size)

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
    """Captions to ids, padded to 32 tokens; a caption that is too long is an error, not a shorter caption."""
    ids = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
    if ids.shape[1] > MAX_TOKENS:
        raise ValueError(f"expected captions of at most {MAX_TOKENS - 2} words; the longest has {ids.shape[1] - 2}")
    return ids


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
        captions += [caption_clip(scene, seed) for scene, seed in zip(of_clips, seeds[recipe.num_frames :], strict=True)]
        return {
            "frames": normalise_pixels(frames), "clips": normalise_pixels(clips), "input_ids": tokenize(tokenizer, captions)
        }  # fmt: skip

    return batch_at
