"""The text that every frame of a window hears, with its own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    text: Tensor
    tokens: Tensor | None = None
    mode: str | None = None

    def context(self, segments: Sequence[int]) -> Tensor:
        """Give the context of a window: every frame the prompt of its segment, and that prompt's tokens of its place.

        Args:
            segments: The segment of every frame.

        Shapes:
            F numbers -> (B, F, N + K, D).
        """
        chosen = list(segments)
        text = self.text[chosen].transpose(0, 1)
        if self.tokens is None:
            return text
        fitted = {segment: fit_tokens(self.tokens[segment], len(chosen), self.mode) for segment in set(chosen)}
        tokens = torch.stack([fitted[segment][:, frame] for frame, segment in enumerate(chosen)], dim=1)
        return torch.cat([text, tokens.to(text)], dim=2)


def window_text(text: Tensor, generator: FrameTokenGenerator | None, mode: str | None = None) -> WindowText:
    """Make the frame tokens of all prompts, (S, B, N, D), at once; without a generator there are none."""
    if generator is None:
        return WindowText(text)
    tokens = generator(rearrange(text, "s b n d -> (s b) n d").to(generator.dtype))
    return WindowText(text, rearrange(tokens, "(s b) f k d -> s b f k d", s=text.shape[0]), mode)
