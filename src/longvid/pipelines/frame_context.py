"""The text that every frame of a window hears, with its own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from longvid.modules.frame_tokens import FrameTokenGenerator, fit_tokens


@dataclass(frozen=True)
class WindowText:
    """Prompts of all segments of a video, and the frame tokens that were made from them.

    Attributes:
        text: (S, B, N, D), S segments.
        tokens: (S, B, F, K, D) for the F frames of a window, or None.
        mode: How tokens fit windows of another length, see `fit_tokens`.
        continuing: The tokens (S, B, F, K, D) of windows that go on from others; None: the same.
    """

    text: Tensor
    tokens: Tensor | None = None
    mode: str | None = None
    continuing: Tensor | None = None

    def context(self, segments: Sequence[int], *, goes_on: bool = False) -> Tensor:
        """Give the context of a window: every frame the prompt of its segment, and that prompt's tokens of its place.

        Args:
            segments: The segment of every frame.
            goes_on: Whether the window goes on from another.

        Shapes:
            F numbers -> (B, F, N + K, D).
        """
        chosen = list(segments)
        text = self.text[chosen].transpose(0, 1)
        if self.tokens is None:
            return text
        made = self.tokens if self.continuing is None or not goes_on else self.continuing
        fitted = {segment: fit_tokens(made[segment], len(chosen), self.mode) for segment in set(chosen)}
        tokens = torch.stack([fitted[segment][:, frame] for frame, segment in enumerate(chosen)], dim=1)
        return torch.cat([text, tokens.to(text)], dim=2)


def window_text(
    text: Tensor, generator: FrameTokenGenerator | None, mode: str | None = None, *, empty: Tensor | None = None
) -> WindowText:
    """Make the frame tokens of all prompts, (S, B, N, D), at once; without a generator there are none.

    Args:
        empty: The embedded empty prompt (1, N, D), whose tokens windows that go on from others hear; None leaves them
            their own.
    """
    if generator is None:
        return WindowText(text)

    def made(rows: Tensor) -> Tensor:
        tokens = generator(rearrange(rows, "s b n d -> (s b) n d").to(generator.dtype))
        return rearrange(tokens, "(s b) f k d -> s b f k d", s=rows.shape[0])

    return WindowText(text, made(text), mode, None if empty is None else made(empty.expand_as(text)))


def empty_text(pipe: Any, null_text: Tensor | None) -> Tensor | None:
    """The embedded empty prompt (1, N, D) if windows that go on are to hear its tokens.

    Raises:
        ValueError: if there is neither a text encoder nor a negative prompt to take for it.
    """
    if pipe.frame_tokens is None or pipe.config["continuing_tokens"] != "empty":
        return None
    if pipe.text_encoder is not None:
        return pipe.encode_prompt([""], pipe._device, 1, False)[0]
    if null_text is None:
        raise ValueError("continuing_tokens='empty' needs negative_prompt_embeds where there is no text encoder")
    return null_text[0, :1]
