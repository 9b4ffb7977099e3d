"""Makes StreamingT2V's videos for the experiments: each from its caption, the same noise everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from longvid.pipelines.streaming_t2v import StreamingT2VPipeline
from longvid.reproduce.captioned_bench import CaptionedBench
from longvid.reproduce.experiment import Measured, Setup, Variant
from longvid.reproduce.memory_measures import memory_caption, memory_scenes, read_memory, tells_colors
from longvid.reproduce.streaming_t2v import MODEL, Changed
from longvid.samplers.mitigating_gradient import mitigated
from longvid.sprites.draw import draw
from longvid.sprites.evaluate import seam_ratio
from longvid.sprites.scene import Scene


class StreamingBench(CaptionedBench):
    """Videos of a StreamingT2V model, also where its chunks were joined. A `how` is a `Changed`."""

    kind: type[StreamingT2VPipeline] = StreamingT2VPipeline
    default = MODEL

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """With the step over the seams."""
        rows = super().read(variant, scenes, videos)
        return [row | {"seam": seam_ratio(video, self.borders())} for row, video in zip(rows, videos, strict=True)]

    def borders(self) -> list[int]:
        """The first frames of the chunks behind the first one."""
        config = self.constants
        return list(range(config["chunk_size"], self.setup.size.num_frames, config["chunk_size"] - config["overlap"]))

    @property
    def constants(self) -> Mapping[str, Any]:
        """Chunk size and overlap."""
        return self.pipe.config

    def pipeline(self, variant: Variant, seed: int) -> StreamingT2VPipeline:
        """The model with what the variant changes; weights are shared."""
        how: Changed = variant.how
        if not how.parts:
            return self.pipe
        changed = self.kind.from_pipe(self.pipe, **{"cam": self.pipe.cam, **how.parts})
        changed.set_progress_bar_config(disable=True)
        return changed

    def call(self, variant: Variant) -> dict[str, Any]:
        """What the variant changes of the call."""
        how: Changed = variant.how
        return dict(how.call)


class MemoryBench(StreamingBench):
    """Videos of sprites that leave and come back, and of colours that no caption names.

    Raises:
        ValueError: if the model has no long-term memory.
    """

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        super().__init__(setup, model)
        if self.pipe.apm is None:
            raise ValueError(f"expected a model with a long-term memory (apm); {self.model} has none")

    def scenes(self, prompts: Sequence[int]) -> list[Scene]:
        """Straight motions, and sprites that pass out of sight."""
        return memory_scenes(prompts)

    def caption(self, prompt: int, scene: Scene) -> str:
        """With the colours, or without."""
        return memory_caption(prompt, scene)

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Make the videos and read them; those whose caption names no colours are counted apart, too."""
        rows = super().measure(variant, prompts, seed)
        untold = [
            None if tells_colors(prompt) else row.values["identity"] for prompt, row in zip(prompts, rows, strict=True)
        ]
        return [replace(row, values={**row.values, "untold": own}) for row, own in zip(rows, untold, strict=True)]

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """With the measures of memory."""
        rows = super().read(variant, scenes, videos)
        return [row | more for row, more in zip(rows, read_memory(scenes, videos), strict=True)]


class ContinuedBench(StreamingBench):
    """Videos that go on from the first frames of a drawn one; those are a part of what is judged."""

    def make(
        self, variant: Variant, scenes: Sequence[Scene], *, prompts: Sequence[int], seed: int, **options: Any
    ) -> Any:
        """The pipeline's output behind the given frames, `num_frames` in all; `output_type` is "pt"."""
        given = draw(scenes, self.constants["overlap"])
        missing = self.setup.size.num_frames - given.shape[2]
        options = {"num_frames": missing, **options, "video": given}
        output = super().make(variant, scenes, prompts=prompts, seed=seed, **options)
        output.frames = torch.cat([given.transpose(1, 2).to(output.frames), output.frames], dim=1)
        return output

    def borders(self) -> list[int]:
        """The first new frame, and those of the chunks behind it."""
        first, size = self.constants["overlap"], self.constants["chunk_size"]
        return list(range(first, self.setup.size.num_frames, size - first))


class MitigatedStreamingT2VPipeline(StreamingT2VPipeline):
    """StreamingT2V with HARIVO's mitigating gradient inside of every chunk, whose first frames make the context again.

    `scale` is its strength. A frame is never moved beyond the one before it.
    """

    scale = 0.0

    def predictor(self, window: Any, state: Any, conditions: Any, **options: Any) -> Any:
        """The prediction of `StreamingT2VPipeline`, mitigated."""
        predict = super().predictor(window, state, conditions, **options)
        return mitigated(predict, self.scheduler, self.scale, max_ratio=1.0)


class MitigatedStreamingBench(StreamingBench):
    """Videos under the mitigating gradient; a variant's `how` is its scale."""

    kind = MitigatedStreamingT2VPipeline

    def pipeline(self, variant: Variant, seed: int) -> StreamingT2VPipeline:
        """The pipeline at the variant's scale."""
        self.pipe.scale = float(variant.how)
        return self.pipe

    def call(self, variant: Variant) -> dict[str, Any]:
        """Nothing but the recommended defaults."""
        return {}
