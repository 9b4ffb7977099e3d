"""The enhancer's prediction for a whole video: guided in every chunk, chunks joined at random frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longvid.pipelines.enhance_request import EnhanceRequest
from longvid.samplers.guidance import guided
from longvid.samplers.prediction import on_device
from longvid.samplers.processes import Processes, Task, windows_or_branches
from longvid.samplers.randomized_blending import blended
from longvid.video.windows import Window

Predict = Callable[[Tensor, Any], Tensor]


class Counted(Processes):
    """The same processes, whose finished tasks move a bar."""

    def __init__(self, processes: Processes, bar: Any):
        self.processes, self.bar = processes, bar
        self.index, self.count = processes.index, processes.count

    def spread(self, tasks: Sequence[Task]) -> Iterator[Tensor]:
        """Count every result as it is there."""
        for result in self.processes.spread(tasks):
            self.bar.update()
            yield result


def chunk_predictor(
    pipe: Any, conditions: Sequence[Mapping[str, Tensor]], request: EnhanceRequest, processes: Processes
) -> Predict:
    """Give `predict(sample, timestep) -> prediction` for the frames of one chunk, (B, C, F, h, w), guided.

    Args:
        pipe: The pipeline.
        conditions: The prompt's, then the negative prompt's: "text", (B, N, D).
        request: Checked.
        processes: Who evaluates the two.
    """

    def conditional(sample: Tensor, timestep: Any, condition: Any) -> Tensor:
        text = condition["text"]
        time = on_device(timestep, sample.device)
        return pipe.unet(sample.to(text.dtype), time, text, return_dict=False)[0].to(sample.dtype)

    def weight(_timestep: float) -> float:  # read anew at every call, as callbacks may change it
        return pipe.guidance_scale - 1 if pipe.do_classifier_free_guidance else 0.0

    return pipe._replayed(
        guided(
            conditional,
            conditions,
            [weight] * (len(conditions) - 1),
            batched=bool(request.batched_guidance),
            rescale=request.guidance_rescale or 0.0,
            processes=processes,
        )
    )


def video_predictor(
    pipe: Any,
    conditions: Sequence[Mapping[str, Tensor]],
    request: EnhanceRequest,
    windows: Sequence[Window],
    *,
    generator: torch.Generator | list[torch.Generator],
    empty: Callable[..., Tensor],
    bar: Any,
) -> Predict:
    """Give `predict(sample, timestep) -> prediction` for the whole video, (B, C, N, h, w) on the host.

    Several processes share the chunks, or the branches of the guidance where there is a single chunk.

    Args:
        pipe: The pipeline.
        conditions: See `chunk_predictor`.
        request: Checked.
        windows: The chunks.
        generator: Source of the cuts.
        empty: Gives the memory of the prediction.
        bar: Is told of every chunk.
    """
    across, within = windows_or_branches(pipe.processes, len(windows))
    predict = chunk_predictor(pipe, conditions, request, within)
    joint = {"cut": request.cut, "device": pipe._device, "empty": empty, "processes": Counted(across, bar)}
    return blended(predict, windows, generator, **joint)
