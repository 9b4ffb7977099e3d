"""StreamingT2V's prediction for one chunk: the UNet with its conditioning modules, under the guidance of Eq. 13."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from longvid.modules.conditional_attention import FrameConditioning
from longvid.modules.unet import VideoUNet
from longvid.samplers.guidance import guided
from longvid.samplers.prediction import on_device
from longvid.samplers.processes import ALONE, Processes

Branches = Sequence[Mapping[str, Any]]


class ChunkPredictor:
    r"""`predict(sample, timestep)` for one chunk, with text :math:`t` and anchor :math:`a` guided apart (Eq. 13).

    .. math:: \epsilon = \epsilon(\emptyset, \emptyset) + w_t\, [\epsilon(t, \emptyset) - \epsilon(\emptyset, \emptyset)]
        + w_a\, [\epsilon(t, a) - \epsilon(t, \emptyset)]

    With equal weights the middle branch drops out and two evaluations remain, as in the released code. The context
    frames are part of every branch.

    Args:
        unet: The video UNet.
        cam: What conditions it on the context frames; None for a chunk without any.
        branches: See `chunk_branches`.
        weights: Gives :math:`(w_t, w_a)`, read again at every evaluation.
        batched: Whether the branches are evaluated in one batch.
        processes: Who evaluates them.

    Shapes:
        sample (B, C, F, h, w), timestep () -> (B, C, F, h, w).
    """

    def __init__(
        self,
        unet: VideoUNet,
        cam: FrameConditioning | None,
        *,
        branches: Branches,
        weights: Callable[[], tuple[float, float]],
        batched: bool = True,
        processes: Processes = ALONE,
    ):
        self.unet, self.cam, self.branches, self.weights = unet, cam, branches, weights
        self.batched, self.processes = batched, processes
        self.dtype = unet.dtype  # a search through all parts of the network: once per chunk

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Predict one chunk, guided, in the scheduler's kind of prediction."""
        text, anchor = self.weights()
        scales = [anchor - text, text - 1.0][: len(self.branches) - 1]
        how = {"batched": self.batched, "processes": self.processes}
        return guided(self.conditional, self.branches, scales, **how)(sample, timestep)

    def conditional(self, sample: Tensor, timestep: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        """Predict under one branch or several joined ones, (n B, C, F, h, w), in the networks' dtype inside."""
        inner, options = sample.to(self.dtype), {}
        timestep = cast(Tensor, on_device(timestep, sample.device))
        if self.cam is not None:
            features = self.cam(inner, timestep, conditions["text"], encoded_frames=conditions["frames"])
            options = self.cam.unet_options(features)
        return self.unet(inner, timestep, conditions["context"], return_dict=False, **options)[0].to(sample.dtype)


def chunk_branches(
    text: Tensor,
    null_text: Tensor | None,
    frames: Tensor | None,
    contexts: Callable[[Tensor, bool], Any],
) -> Branches:
    """List the branches of Eq. 13 in order: full, without anchor, without anchor and text.

    Args:
        text: Embedded prompts, (B, N, D).
        null_text: Embedded negative prompts; None leaves the last branch out.
        frames: Encoded context frames, or None.
        contexts: Gives what the text layers read for a text, with the anchor or without it.
    """
    full = {"text": text, "frames": frames, "context": contexts(text, True)}
    branches = [full, {**full, "context": contexts(text, False)}]
    if null_text is not None:
        branches.append({"text": null_text, "frames": frames, "context": contexts(null_text, False)})
    return branches
