"""What a CLIP model says: how well frames fit the text, and how alike neighbouring frames are."""

from __future__ import annotations

from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.encoders import TINY, ImageTextEncoder, load_encoder

TINY_NOTE = "; this tiny CLIP knows only the built-in world"


class CLIPTextScore(Metric):
    r"""CLIP score: the mean over frames of the cosine between the features of the frame and those of the text.

    .. math:: \frac{1}{N} \sum_n \cos(e_{image}(x_n), e_{text}(y))

    Papers print this number (ART-V's CLIPSIM) or 100 times it (StreamingT2V). One number per frame is kept.

    Args:
        prompt: The text that the video was made for.
        clip: An encoder, or what :func:`~longvid.metrics.encoders.load_encoder` takes.
        device: Name of the device of an encoder that is loaded here.

    Raises:
        MissingWeights: if the encoder is not there.
        ValueError: if the prompt is missing or empty.

    Source: Radford et al. 2021; StreamingT2V (arXiv:2403.14773), Sec. 5.1.
    """

    name = "clip_score"
    about = "How well the frames fit the words of the prompt, read by a CLIP model; 1 would be a perfect fit."

    def __init__(
        self, *, prompt: str | None = None, clip: str | ImageTextEncoder = TINY, device: str | None = None
    ) -> None:
        if not prompt:
            raise ValueError("the metric 'clip_score' compares frames with a text: pass a prompt")
        self.encoder = load_encoder(clip, device) if isinstance(clip, str) else clip
        self.excess = self.encoder.excess_tokens(prompt)
        self._text = F.normalize(self.encoder.encode_text(prompt).float(), dim=-1)
        self._size: tuple[int, int] | None = None
        self._scores: list[float] = []

    @torch.no_grad()
    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        images = F.normalize(self.encoder.encode_images(frames.float()).float(), dim=-1)
        self._scores += (images @ self._text).tolist()

    def compute(self) -> MetricResult:
        note = _note(self.encoder)
        if self.excess:
            note += f"; the last {self.excess} tokens of the text are beyond what it reads"
        if not self._scores:
            return MetricResult(self.name, None, True, "cosine", note="no frames were seen")
        details: dict[str, float | str] = {"first frame": self._scores[0], "last frame": self._scores[-1]}
        return MetricResult(self.name, fmean(self._scores), True, "cosine", tuple(self._scores), 0, details, note)


class CLIPFrameConsistency(Metric):
    r"""CLIP frame consistency: the mean cosine between the image features of neighbouring frames.

    .. math:: \frac{1}{N-1} \sum_n \cos(e_{image}(x_n), e_{image}(x_{n+1}))

    A still picture repeated gives 1: read it together with the amount of motion. One number per step is kept.

    Args:
        clip: An encoder, or what :func:`~longvid.metrics.encoders.load_encoder` takes.
        device: Name of the device of an encoder that is loaded here.

    Raises:
        MissingWeights: if the encoder is not there.

    Source: Esser et al. 2023 (Gen-1), Sec. 4.
    """

    name = "clip_consistency"
    about = "How alike neighbouring frames are in content, read by a CLIP model; a video that stands still has 1."

    def __init__(self, *, clip: str | ImageTextEncoder = TINY, device: str | None = None) -> None:
        self.encoder = load_encoder(clip, device) if isinstance(clip, str) else clip
        self._size: tuple[int, int] | None = None
        self._last: Tensor | None = None
        self._first: Tensor | None = None
        self._cosines: list[float] = []
        self._to_first: float = 1.0

    @torch.no_grad()
    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        features = F.normalize(self.encoder.encode_images(frames.float()).float(), dim=-1)
        chain = features if self._last is None else torch.cat([self._last[None], features])
        self._cosines += (chain[1:] * chain[:-1]).sum(-1).tolist()
        self._first = features[0] if self._first is None else self._first
        self._last = features[-1]
        self._to_first = float(self._first @ self._last)

    def compute(self) -> MetricResult:
        if not self._cosines:
            return MetricResult(self.name, None, True, "cosine", note="it takes two frames or more")
        details: dict[str, float | str] = {"lowest": min(self._cosines), "last frame to first frame": self._to_first}
        value = fmean(self._cosines)
        return MetricResult(self.name, value, True, "cosine", tuple(self._cosines), 1, details, _note(self.encoder))


def _note(encoder: ImageTextEncoder) -> str:
    return f"CLIP: {encoder.name}" + (TINY_NOTE if encoder.name.startswith(TINY) else "")
