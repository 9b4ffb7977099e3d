"""Micro-batches for every objective out of a user's captioned clips; each depends on (seed, index) alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTokenizer

from longvid.training.art_v import ARTVRecipe
from longvid.training.clip import CLIP_FRAMES, CLIPRecipe, build_tokenizer, normalise_pixels, tokenize
from longvid.training.draws import batch_draws
from longvid.training.frame_store import FrameStore
from longvid.training.harivo import HARIVORecipe
from longvid.training.loop import Batch, BatchSource
from longvid.training.streaming_t2v import StreamingT2VRecipe
from longvid.training.unet import UNetRecipe
from longvid.training.vae import VAERecipe
from longvid.training.video_base import VideoBaseRecipe

MAX_WORDS = 20_000
CLIP_LENGTH = 77


def tokenizer_for(captions: Sequence[str]) -> CLIPTokenizer:
    """A tokenizer in which the captions' most frequent words are one token each; it can spell every other text."""
    counts = Counter(word for caption in captions for word in re.findall(r"[a-z]+", caption.lower()))
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS]]
    return build_tokenizer(words, letters=sorted(ByteLevel.alphabet()), max_tokens=CLIP_LENGTH)


def check_captions(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> None:
    """Find a caption that is too long before the training, not in the middle of it.

    Raises:
        ValueError: with the first such caption.
    """
    for first in range(0, len(captions), 1000):
        tokenize(tokenizer, list(captions[first : first + 1000]))


def captioned_frames(recipe: VAERecipe, pixels: FrameStore) -> BatchSource:
    """Single frames for `VAEObjective`, all their pixels with the same weight."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        frames = torch.cat([_one(pixels, clip, draws) for clip in _clips(pixels, recipe.batch_size, draws)])
        frames = _signed(frames)
        return {"frames": frames, "mask": torch.zeros_like(frames[:, :1])}

    return batch_at


def captioned_pairs(recipe: CLIPRecipe, pixels: FrameStore, tokenizer: CLIPTokenizer) -> BatchSource:
    """Frames and short clips with their captions for `CLIPObjective`."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        of_frames, of_clips = (_clips(pixels, size, draws) for size in (recipe.num_frames, recipe.num_clips))
        frames = torch.cat([_one(pixels, clip, draws) for clip in of_frames])
        clips = []
        for clip in of_clips:
            start = _below(pixels.num_frames(clip) - max(CLIP_FRAMES), draws)
            clips.append(pixels.frames(clip, [start + offset for offset in CLIP_FRAMES]))
        captions = [pixels.clips[clip].caption for clip in of_frames + of_clips]
        return {
            "frames": _seen(frames, recipe.image_size),
            "clips": _seen(torch.cat(clips), recipe.image_size).unflatten(0, (len(clips), -1)),
            "input_ids": tokenize(tokenizer, captions),
        }

    return batch_at


def captioned_latents(recipe: UNetRecipe, latents: FrameStore, tokenizer: CLIPTokenizer) -> BatchSource:
    """Latents of single frames with their clip's caption for `UNetObjective`, the text dropped now and then."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clips = _clips(latents, recipe.batch_size, draws)
        dropped = (torch.rand(recipe.batch_size, generator=draws) < recipe.text_dropout).tolist()
        captions = ["" if drop else latents.clips[clip].caption for clip, drop in zip(clips, dropped, strict=True)]
        frames = torch.cat([_one(latents, clip, draws) for clip in clips])
        return {"latents": frames.float(), "input_ids": tokenize(tokenizer, captions)}

    return batch_at


def captioned_histories(recipe: ARTVRecipe, latents: FrameStore, tokenizer: CLIPTokenizer) -> BatchSource:
    """Frames with their two predecessors and an anchor for `ARTVObjective`.

    The target is any frame i of a clip but the first, and the second one `second_frames` of the time; the references
    are frames i - 1 and i - 2 (the first frame twice, for the second), the anchor one of the `anchor_window` before it.
    """

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clips = _clips(latents, recipe.batch_size, draws)
        chance = torch.rand(2, recipe.batch_size, generator=draws)
        picked = []
        for row, clip in enumerate(clips):
            target = 1 + _below(latents.num_frames(clip) - 1, draws)
            target = 1 if chance[0, row] < recipe.second_frames else target
            anchor = target - 1 - _below(min(target, recipe.anchor_window), draws)
            picked.append(latents.frames(clip, [target, target - 1, max(target - 2, 0), anchor]))
        frames = torch.stack(picked).float()
        return {
            "target": frames[:, 0],
            "references": frames[:, 1:3],
            "anchor": frames[:, 3],
            "first": chance[1] < recipe.first_frames,
            "input_ids": tokenize(tokenizer, [latents.clips[clip].caption for clip in clips]),
        }

    return batch_at


def captioned_windows(recipe: HARIVORecipe, latents: FrameStore, tokenizer: CLIPTokenizer) -> BatchSource:
    """Windows of `num_frames` consecutive frames of the clips, with their captions, for `HARIVOObjective`."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clips = _clips(latents, recipe.batch_size, draws)
        videos = [_stretch(latents, clip, recipe.num_frames, draws)[1] for clip in clips]
        captions = [latents.clips[clip].caption for clip in clips]
        return {"latents": torch.stack(videos), "input_ids": tokenize(tokenizer, captions)}

    return batch_at


def captioned_clips(recipe: VideoBaseRecipe, latents: FrameStore, tokenizer: CLIPTokenizer) -> BatchSource:
    """Stretches of `num_frames` latents with their clip's caption for `VideoObjective`."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clips = _clips(latents, recipe.batch_size, draws)
        stretches = [_stretch(latents, clip, recipe.num_frames, draws)[1] for clip in clips]
        captions = [latents.clips[clip].caption for clip in clips]
        return {"latents": torch.stack(stretches).transpose(1, 2), "input_ids": tokenize(tokenizer, captions)}

    return batch_at


def captioned_chunks(
    recipe: StreamingT2VRecipe, latents: FrameStore, pixels: FrameStore, tokenizer: CLIPTokenizer
) -> BatchSource:
    """Chunks of latents, with the pixels of their context and anchor, for `StreamingT2VObjective`."""

    def batch_at(index: int) -> Batch:
        draws = batch_draws(recipe.seed, index)
        clips = _clips(latents, recipe.batch_size, draws)
        chunks, contexts, anchors = [], [], []
        for clip in clips:
            start, stretch = _stretch(latents, clip, recipe.clip_frames, draws)
            first = start + recipe.anchor_window
            chunks.append(stretch[recipe.anchor_window :])
            contexts.append(_signed(pixels.frames(clip, range(first, first + recipe.overlap))).transpose(0, 1))
            anchors.append(_signed(pixels.frames(clip, [start + _below(recipe.anchor_window, draws)]))[0])
        return {
            "latents": torch.stack(chunks).transpose(1, 2),
            "context": torch.stack(contexts),
            "anchor": torch.stack(anchors),
            "input_ids": tokenize(tokenizer, [latents.clips[clip].caption for clip in clips]),
        }

    return batch_at


def _stretch(store: FrameStore, clip: int, length: int, draws: torch.Generator) -> tuple[int, Tensor]:
    """Consecutive frames of a clip from a random place on: where they start, and they, (length, ...)."""
    start = _below(store.num_frames(clip) - length + 1, draws)
    return start, store.frames(clip, range(start, start + length)).float()


def _signed(frames: Tensor) -> Tensor:
    """8-bit frames as pixels in [-1, 1]."""
    return frames.float() / 127.5 - 1


def _clips(store: FrameStore, count: int, draws: torch.Generator) -> list[int]:
    return torch.randint(0, len(store), (count,), generator=draws).tolist()


def _below(bound: int, draws: torch.Generator) -> int:
    """A whole number in [0, bound)."""
    return int(torch.randint(0, bound, (), generator=draws))


def _one(store: FrameStore, clip: int, draws: torch.Generator) -> Tensor:
    """A frame of a clip at random, (1, ...)."""
    return store.frames(clip, [_below(store.num_frames(clip), draws)])


def _seen(frames: Tensor, size: int) -> Tensor:
    """8-bit frames (N, 3, H, W) as a CLIP image tower of this size sees them."""
    pixels = frames.float() / 255
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return normalise_pixels(pixels)
