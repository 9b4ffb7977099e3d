"""What a stream of HARIVO is made from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from longvid.pipelines.clip_predictor import Branches
from longvid.pipelines.frame_context import WindowText
from longvid.pipelines.harivo_request import HARIVORequest
from longvid.pipelines.image_prompts import Embeddings
from longvid.video.windows import Window


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

    def branches(self, window: Window, pictures: Tensor | None) -> Branches:
        """What the prompt and, if there is one, the negative prompt say in a window, with its ControlNet's pictures."""
        segments = [self.request.prompts.segment(frame) for frame in range(window.start, window.stop)]
        branches = []
        for index, text in enumerate((self.text, self.null_text)):
            if text is not None:
                context = text.context(segments, goes_on=window.index > 0)
                images = None if self.images is None else self.images[index]
                branches.append({"context": context, "images": images, "pictures": pictures})
        return branches
