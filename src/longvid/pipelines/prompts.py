"""Which prompt is heard at which frame, and text in the form the networks read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

Prompt = str | Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class PromptPlan:
    """The prompts of a batch of videos, cut into segments of frames.

    Attributes:
        texts: One tuple of prompts per video, one prompt per segment; None where embeddings were given.
        starts: The first frame of every segment, beginning with 0.
        num_videos: Videos in the batch, before ``num_videos_per_prompt``.
        num_frames: Frames of every video; ``math.inf`` for a stream without end.
    """

    texts: tuple[tuple[str, ...], ...] | None
    starts: tuple[int, ...]
    num_videos: int
    num_frames: float

    @property
    def num_segments(self) -> int:
        """Count the segments, which is the number of prompts of each video."""
        return len(self.starts)

    def segment(self, frame: int) -> int:
        """Tell which segment a frame lies in; beyond the last prompt it is the last one."""
        return bisect_right(self.starts, frame) - 1

    def flat_texts(self) -> list[str] | None:
        """List all prompts, video by video, segment by segment."""
        return None if self.texts is None else [text for video in self.texts for text in video]


def plan_prompts(
    prompt: Prompt | None,
    num_embeds: int | None,
    *,
    num_frames: float | None,
    frames_per_prompt: int | Sequence[int] | None,
    default_num_frames: int,
    default_frames_per_prompt: int = 16,
) -> PromptPlan:
    """Lay the prompts out over the frames.

    A string is one prompt. A list of strings is a batch of videos, unless ``frames_per_prompt`` is given: then it is
    one video told in several prompts. A list of lists is a batch of such videos.

    Args:
        prompt: The prompts, or None if embeddings were given.
        num_embeds: Rows of the given embeddings, or None.
        num_frames: Frames to make, None for the default, ``math.inf`` for a stream without end.
        frames_per_prompt: Frames of every segment, or a list with the frames of each.
        default_num_frames: Used for one prompt when ``num_frames`` is None.
        default_frames_per_prompt: Used for nested lists when ``frames_per_prompt`` is None.

    Raises:
        ValueError: if there is no prompt, an empty one, both or neither of prompt and embeddings, or if the prompts
            do not match the frames.
    """
    if (prompt is None) == (num_embeds is None):
        given = "neither" if prompt is None else "both"
        raise ValueError(f"expected either prompt or prompt_embeds; got {given}")
    nested = isinstance(prompt, (list, tuple)) and any(isinstance(part, (list, tuple)) for part in prompt)
    if nested and frames_per_prompt is None:
        frames_per_prompt = default_frames_per_prompt
    several = frames_per_prompt is not None
    texts = None if prompt is None else _nest(prompt, several)
    if texts is None:
        num_videos, num_segments = (1, num_embeds or 0) if several else (num_embeds or 0, 1)
    else:
        num_videos, num_segments = len(texts), len(texts[0])
    lengths = _segment_lengths(frames_per_prompt, num_segments)
    if num_frames is None:
        num_frames = sum(lengths) if lengths else default_num_frames
    starts = (0, *accumulate(lengths[:-1])) if lengths else (0,)
    if lengths and not starts[-1] < num_frames <= starts[-1] + lengths[-1]:
        raise ValueError(
            f"{num_segments} prompts of {frames_per_prompt} frames each need num_frames from {starts[-1] + 1} to "
            f"{sum(lengths)}; got num_frames={num_frames}"
        )
    return PromptPlan(texts, starts, num_videos, num_frames)


def opening_negatives(negative: str | Sequence[str], plan: PromptPlan, copies: int) -> list[str]:
    """Give the negative prompt that every video of a batch opens with.

    Args:
        negative: One for all, or one per prompt, video by video, segment by segment.
        plan: The prompts.
        copies: Videos per prompt; they follow each other.
    """
    texts = [negative] if isinstance(negative, str) else list(negative)
    first = texts * plan.num_videos if len(texts) == 1 else texts[:: plan.num_segments]
    return [text for text in first for _ in range(copies)]


def cut_off(texts: Sequence[str], tokenizer: Any) -> list[str]:
    """Give what a tokenizer cuts off behind its model's length, of each text that is too long."""
    length = tokenizer.model_max_length
    ids = tokenizer(list(texts), truncation=False, verbose=False).input_ids
    return [tokenizer.decode(row[length - 1 : -1]) for row in ids if len(row) > length]


def encode_text(
    texts: list[str], tokenizer: Any, text_encoder: Any, device: torch.device | str | None = None
) -> Tensor:
    """Encode prompts as Stable Diffusion does: padded and cut to the model's length, last hidden state, final norm.

    Shapes:
        B strings -> (B, N, D).
    """
    tokens = tokenizer(
        texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    use_mask = getattr(text_encoder.config, "use_attention_mask", None)
    mask = tokens.attention_mask.to(device) if use_mask else None
    return text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]


def _nest(prompt: Prompt, several: bool) -> tuple[tuple[str, ...], ...]:
    if isinstance(prompt, str):
        nested: list[list[Any]] = [[prompt]]
    elif not isinstance(prompt, (list, tuple)):
        nested = []
    elif all(isinstance(part, str) for part in prompt):
        nested = [list(prompt)] if several else [[part] for part in prompt]
    else:
        nested = [list(part) if isinstance(part, (list, tuple)) else [part] for part in prompt]
    if not nested or not all(nested) or not all(isinstance(text, str) for video in nested for text in video):
        raise ValueError(f"prompt must be a string, a list of strings or a list of lists of strings; got {prompt!r}")
    lengths = [len(video) for video in nested]
    if len(set(lengths)) > 1:
        raise ValueError(f"every video of a batch needs the same number of prompts; got {lengths}")
    return tuple(tuple(video) for video in nested)


def _segment_lengths(frames_per_prompt: int | Sequence[int] | None, num_segments: int) -> list[int]:
    if frames_per_prompt is None:
        return []
    lengths = [frames_per_prompt] * num_segments if isinstance(frames_per_prompt, int) else list(frames_per_prompt)
    if len(lengths) != num_segments:
        raise ValueError(f"frames_per_prompt names {len(lengths)} segments for {num_segments} prompts")
    if not all(isinstance(length, int) and length > 0 for length in lengths):
        raise ValueError(f"frames_per_prompt must be whole numbers of at least 1; got {frames_per_prompt}")
    return lengths
