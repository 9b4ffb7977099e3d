"""Text layers: the transformers of a video UNet that read text, each its own text if asked to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

Text: TypeAlias = Tensor | Sequence[Tensor]


class TextTransformer(Transformer2DModel):
    """A stock spatial transformer that knows its number among the text layers of a UNet.

    Given one text it reads that; given a sequence of texts it reads its own. A text per sample is spread over the
    frames of the sample. Weights, keys, blocks and attention processors are those of the stock transformer.

    Shapes:
        hidden_states (B * F, C, H, W), text (B, N, D) or (B * F, N, D), or a sequence of such -> (B * F, C, H, W).
    """

    layer: int

    @classmethod
    def of(cls, transformer: nn.Module, layer: int) -> TextTransformer:
        """Shallow copy of a stock transformer under this class: the same weights under the same names."""
        text_transformer = cls.__new__(cls)
        text_transformer.__dict__.update(transformer.__dict__)
        text_transformer.layer = layer
        return text_transformer

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Text, *rest: Any, **options: Any) -> Any:
        """Compute the transformer with the text of this layer."""
        text = encoder_hidden_states if isinstance(encoder_hidden_states, Tensor) else encoder_hidden_states[self.layer]
        num_repeats = hidden_states.shape[0] // text.shape[0]
        text = text.repeat_interleave(num_repeats, dim=0, output_size=text.shape[0] * num_repeats)
        return super().forward(hidden_states, text, *rest, **options)


def install_text_layers(blocks: Iterable[nn.Module]) -> int:
    """Turn the spatial transformers of a UNet's blocks into text layers, numbered in this order; returns how many."""
    count = 0
    for block in blocks:
        if getattr(block, "has_cross_attention", False):
            numbered = enumerate(block.attentions, start=count)  # type: ignore[arg-type]
            block.attentions = nn.ModuleList(TextTransformer.of(transformer, layer) for layer, transformer in numbered)
            count += len(block.attentions)
    return count


def check_text(text: Text, *, batch: int, num_frames: int, num_layers: int) -> Text:
    """Check text for a UNet and put the frames of a text per frame into the batch.

    Shapes:
        (B, N, D) as it is, (B, F, N, D) -> (B * F, N, D), or a sequence of `num_layers` such.

    Raises:
        ValueError: if the batch, the frames or the number of layers does not fit.
    """
    if not isinstance(text, Tensor):
        if len(text) != num_layers:
            raise ValueError(f"expected one text, or one per text layer, {num_layers} in all; got {len(text)}")
        return tuple(_fold_text(one, batch, num_frames) for one in text)
    return _fold_text(text, batch, num_frames)


def _fold_text(text: Tensor, batch: int, num_frames: int) -> Tensor:
    per_sample, per_frame = text.ndim == 3, text.ndim == 4
    if not (per_sample or per_frame) or text.shape[0] != batch or (per_frame and text.shape[1] != num_frames):
        raise ValueError(
            f"encoder_hidden_states must be ({batch}, N, D), a text per sample, or ({batch}, {num_frames}, N, D), a text"
            f" per frame; got {tuple(text.shape)}"
        )
    return text if per_sample else text.flatten(0, 1)
