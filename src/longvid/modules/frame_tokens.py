"""HARIVO's frame-wise tokens: a few extra text tokens for every frame, made from the prompt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn

TOKEN_MODES = ("slice", "interpolate", "tile")


class FrameTokenGenerator(ModelMixin, ConfigMixin):
    r"""Makes K extra text tokens for each of F frames from the tokens of a prompt.

    .. math:: t_\theta : (M \times D) \to (F \times K \times D)

    A linear layer, a convolution that takes the M tokens for channels and makes F K of them, and three linear layers,
    with SiLU behind each. The tokens depend on the text alone, not on the noise or its level.

    Args:
        text_dim: D, width of a text token.
        num_text_tokens: M, tokens of a prompt.
        num_frames: F, frames of a clip.
        tokens_per_frame: K; 0 makes none.
        zero_init_last: Whether the last layer, and with it every token, is zero at first. A token of zeros still takes
            its share of the attention.
        smoothing: Standard deviation, in frames, of a Gaussian that the tokens are averaged with along the clip, so that
            neighbouring frames hear nearly the same; 0, as in the paper, leaves them as they are. What lies beyond the
            first and the last frame does not count.

    Shapes:
        text (B, M, D) -> tokens (B, F, K, D); `frame_context` joins them to the text.

    Raises:
        ValueError: for a negative smoothing; when called, for a text of another length or width.

    Source: HARIVO (arXiv:2410.07763), Sec. 3.5 and the appendix's `Frame_wise_token`, with its two SiLUs behind the first layer.
    """

    @register_to_config
    def __init__(
        self,
        text_dim: int = 768,
        num_text_tokens: int = 77,
        num_frames: int = 24,
        tokens_per_frame: int = 3,
        zero_init_last: bool = False,
        smoothing: float = 0.0,
    ):
        super().__init__()
        if smoothing < 0:
            raise ValueError(f"smoothing must be at least 0 frames; got {smoothing}")
        layers: list[nn.Module] = []
        if tokens_per_frame:
            layers = [nn.Linear(text_dim, text_dim), nn.SiLU(), nn.SiLU()]
            layers += [nn.Conv1d(num_text_tokens, num_frames * tokens_per_frame, 1, bias=False), nn.SiLU()]
            for _ in range(3):
                layers += [nn.Linear(text_dim, text_dim), nn.SiLU()]
            if zero_init_last:
                for parameter in layers[-2].parameters():
                    nn.init.zeros_(parameter)
        self.layers = nn.Sequential(*layers)

    def forward(self, text: Tensor) -> Tensor:
        """Make the tokens of every frame of a clip."""
        num_tokens, width = self.config["num_text_tokens"], self.config["text_dim"]
        if text.ndim != 3 or tuple(text.shape[1:]) != (num_tokens, width):
            raise ValueError(f"expected text (B, {num_tokens}, {width}) for the frame tokens; got {tuple(text.shape)}")
        num_frames, per_frame = self.config["num_frames"], self.config["tokens_per_frame"]
        if not per_frame:
            return text.new_zeros(len(text), num_frames, 0, width)
        tokens = rearrange(self.layers(text), "b (f n) d -> b f n d", f=num_frames)
        return smoothed(tokens, self.config["smoothing"]) if self.config["smoothing"] else tokens


def smoothed(tokens: Tensor, deviation: float) -> Tensor:
    r"""Average tokens along the frames with a Gaussian, whose weights add up to 1 at every frame.

    .. math:: \bar t_f = \frac{\sum_g e^{-(f - g)^2 / 2 \sigma^2}\, t_g}{\sum_g e^{-(f - g)^2 / 2 \sigma^2}}

    Args:
        tokens: Tokens of the frames of a clip.
        deviation: :math:`\sigma`, in frames, above 0.

    Shapes:
        (B, F, K, D) -> (B, F, K, D).
    """
    places = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.float32)
    weights = torch.softmax(-((places[:, None] - places) / deviation).square() / 2, dim=1)
    return torch.einsum("f g, b g n d -> b f n d", weights.to(tokens), tokens)


def fit_tokens(tokens: Tensor, num_frames: int, mode: str | None = None) -> Tensor:
    """Give the tokens of a clip of another length than the generator makes.

    Args:
        tokens: What the generator made.
        num_frames: Frames of the clip.
        mode: "slice" takes the first frames, "interpolate" draws the tokens linearly over the clip, first to first and
            last to last, "tile" begins again behind the last. By default a shorter clip is sliced, a longer one
            interpolated.

    Shapes:
        (B, F, K, D) -> (B, num_frames, K, D).

    Raises:
        ValueError: for another mode, or a slice of more frames than there are.
    """
    made = tokens.shape[1]
    mode = mode or ("slice" if num_frames <= made else "interpolate")
    if mode not in TOKEN_MODES:
        raise ValueError(f"frame token mode must be one of {', '.join(TOKEN_MODES)}; got {mode!r}")
    if mode == "tile":
        return tokens[:, torch.arange(num_frames, device=tokens.device) % made]
    if mode == "slice" or num_frames == made:
        if num_frames > made:
            raise ValueError(f"there are tokens for {made} frames; a clip of {num_frames} cannot be a slice of them")
        return tokens[:, :num_frames]
    rows = rearrange(tokens, "b f n d -> b (n d) f")
    rows = F.interpolate(rows.float(), size=num_frames, mode="linear", align_corners=True).to(tokens.dtype)
    return rearrange(rows, "b (n d) f -> b f n d", n=tokens.shape[2])


def frame_context(text: Tensor, num_frames: int, tokens: Tensor | None = None) -> Tensor:
    """Repeat the text for every frame and join each frame's own tokens to it.

    Args:
        text: Embedded prompts.
        num_frames: F.
        tokens: Tokens of F frames; None repeats the text alone, as the image path wants it.

    Shapes:
        text (B, M, D), tokens (B, F, K, D) -> (B * F, M + K, D), the frames of one video next to each other: what
        `UNetMotionModel` takes.

    Raises:
        ValueError: if text and tokens are not those of the same videos and frames.
    """
    context = repeat(text, "b n d -> b f n d", f=num_frames)
    if tokens is not None:
        expected = (text.shape[0], num_frames, text.shape[2])
        found = (*tokens.shape[:2], tokens.shape[-1])
        if tokens.ndim != 4 or found != expected:
            raise ValueError(f"expected tokens (B, F, K, D) with B, F, D = {expected}; got {tuple(tokens.shape)}")
        context = torch.cat([context, tokens.to(context)], dim=2)
    return rearrange(context, "b f n d -> (b f) n d")
