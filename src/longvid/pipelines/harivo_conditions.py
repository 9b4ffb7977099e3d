"""What a stream of HARIVO is made from."""

from __future__ import annotations

from dataclasses import dataclass

from longvid.pipelines.frame_context import WindowText
from longvid.pipelines.harivo_request import HARIVORequest
from longvid.pipelines.image_prompts import Embeddings


@dataclass(frozen=True)
class HARIVOConditions:
    """What one stream is made from, encoded once.

    Attributes:
        request: The checked request.
        text: Prompts of every segment with their frame tokens.
        null_text: The same of the negative prompts, or None without text guidance.
        images: Embedded images for every IP-Adapter, and the blank ones, or None.
    """

    request: HARIVORequest
    text: WindowText
    null_text: WindowText | None
    images: tuple[Embeddings, Embeddings] | None
