"""The aesthetic score of LAION: a small head on the features of CLIP ViT-L/14 that predicts how people rate a picture."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.encoders import ImageTextEncoder, load_encoder
from longvid.metrics.weights import load_exactly, need_file, read_weights

VIT_L = "open_clip:ViT-L-14:openai"
FILE = (
    "LAION's aesthetic head on CLIP ViT-L/14: sa_0_4_vit_l_14_linear.pth (LAION-AI/aesthetic-predictor) or"
    " sac+logos+ava1-l14-linearMSE.pth (christophschuhmann/improved-aesthetic-predictor)"
)
_LAYERS = (0, 2, 4, 6, 7)  # places of the linear layers in the improved predictor; dropout lies between them


class AestheticScore(Metric):
    """Aesthetic score: the mean over frames of what LAION's head says of the normalised CLIP image features.

    Ratings run from about 1 to 10. One number per frame is kept.

    Args:
        head: A head, or the file of its weights; linear (``weight``, ``bias``) or the improved predictor's five
            linear layers without activations.
        clip: The encoder that the head was trained on. LAION's need OpenAI's ViT-L/14 with 768 features.
        device: Name of the device of an encoder that is loaded here.

    Raises:
        MissingWeights: if the head or the encoder is not there.
        ValueError: if the file holds another network.

    Source: Schuhmann et al. 2022 (LAION-5B); StreamingT2V (arXiv:2403.14773), Sec. 5.1.
    """

    name = "aesthetic"
    about = "How much people would like the single frames, predicted by LAION's head on CLIP; from about 1 to 10."

    def __init__(
        self,
        *,
        head: str | os.PathLike[str] | nn.Module | None = None,
        clip: str | ImageTextEncoder = VIT_L,
        device: str | None = None,
    ) -> None:
        if isinstance(head, nn.Module):
            self.head = head
        else:
            path = need_file(head, what="the metric 'aesthetic'", option="aesthetic.head", file=FILE)
            self.head = load_head(path)
        self.encoder = load_encoder(clip, device) if isinstance(clip, str) else clip
        self._size: tuple[int, int] | None = None
        self._scores: list[float] = []

    @torch.no_grad()
    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        features = F.normalize(self.encoder.encode_images(frames.float()).float(), dim=-1).cpu()
        width = next(self.head.parameters()).shape[-1]
        if features.shape[-1] != width:
            raise ValueError(
                f"the aesthetic head reads {width} features, and {self.encoder.name} gives {features.shape[-1]}:"
                f" pass aesthetic.clip={VIT_L}"
            )
        self._scores += self.head(features)[:, 0].tolist()

    def compute(self) -> MetricResult:
        if not self._scores:
            return MetricResult(self.name, None, True, "of 10", note="no frames were seen")
        note = f"CLIP: {self.encoder.name}"
        details: dict[str, float | str] = {"first frame": self._scores[0], "last frame": self._scores[-1]}
        return MetricResult(self.name, fmean(self._scores), True, "of 10", tuple(self._scores), 0, details, note)


@lru_cache(maxsize=1)
def load_head(path: Path) -> nn.Module:
    """The head in a file of weights, on the CPU.

    Raises:
        ValueError: if it is neither a linear layer nor the improved predictor.
    """
    weights = read_weights(path)
    if set(weights) == {"weight", "bias"} and weights["weight"].ndim == 2:
        head: nn.Module = nn.Linear(weights["weight"].shape[1], 1)
        load_exactly(head, weights, path, "a linear head")
        return head.eval()
    names = [f"layers.{place}.weight" for place in _LAYERS]
    if not set(names) <= set(weights) or any(weights[name].ndim != 2 for name in names):
        raise ValueError(f"{path} is not {FILE}; it holds {', '.join(sorted(weights)[:4])}, ...")
    stack = nn.Sequential(*[nn.Identity() for _ in range(_LAYERS[-1] + 1)])
    for place, name in zip(_LAYERS, names, strict=True):
        width, read = weights[name].shape
        stack[place] = nn.Linear(read, width)
    load_exactly(stack, {name.removeprefix("layers."): value for name, value in weights.items()}, path, FILE)
    return stack.eval()
