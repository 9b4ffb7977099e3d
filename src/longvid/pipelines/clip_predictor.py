"""HARIVO's prediction for the frames of one window: mapping network, frame-wise text, guidance, ControlNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import UNetMotionModel
from einops import rearrange
from torch import Tensor

from longvid.modules.mapping_network import MappingNetwork
from longvid.samplers.guidance import Scale, guided, scale_at
from longvid.samplers.prediction import on_device
from longvid.samplers.processes import ALONE, Processes
from longvid.video.layout import fold_frames

Branches = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ClipControl:
    """A ControlNet and the frames of a clip that it is shown pictures for.

    Attributes:
        network: A diffusers ControlNet.
        frames: Numbers of those frames within the clip.
        scale: Its weight, or a function of the timestep.
        num_tokens: How many tokens of the context it reads: those of the text, or all.
        mapped: Whether it sees the mapped latents or those the mapping network got.
    """

    network: Any
    frames: list[int]
    scale: Scale
    num_tokens: int | None
    mapped: bool

    def residuals(
        self, sample: Tensor, timestep: Tensor, context: Tensor, pictures: Tensor
    ) -> tuple[list[Tensor], Tensor] | None:
        """Features for the UNet's skip connections and middle; zero on frames without a picture.

        Shapes:
            sample (B, C, F, h, w), context (B, F, N, D), pictures (B, 3, n, H, W) -> (B * F, C_i, h_i, w_i) each.
        """
        scale = scale_at(self.scale, timestep)
        if scale == 0:
            return None
        batch, _, num_frames, *_ = sample.shape
        chosen = torch.tensor(self.frames, device=sample.device)
        text = context[:, chosen, : self.num_tokens]
        timestep = cast(Tensor, on_device(timestep, sample.device))
        times = timestep.repeat_interleave(len(chosen)) if torch.is_tensor(timestep) and timestep.ndim else timestep
        down, middle = self.network(
            fold_frames(sample[:, :, chosen]).to(self.network.dtype),
            times,
            encoder_hidden_states=rearrange(text, "b f n d -> (b f) n d").to(self.network.dtype),
            controlnet_cond=fold_frames(pictures).to(sample.device, self.network.dtype),
            conditioning_scale=scale,
            return_dict=False,
        )
        rows = (torch.arange(batch, device=sample.device)[:, None] * num_frames + chosen).flatten()

        def spread(features: Tensor) -> Tensor:
            whole = features.new_zeros((batch * num_frames, *features.shape[1:])).to(sample.dtype)
            return whole.index_copy(0, rows, features.to(sample.dtype))

        return [spread(features) for features in down], spread(middle)


class ClipPredictor:
    r"""`predict(sample, timestep)` for one clip.

    .. math:: z = M(x_t), \qquad \hat\epsilon = \epsilon(z, t, \emptyset) + w\, [\epsilon(z, t, c) -
        \epsilon(z, t, \emptyset)]

    The mapping network runs once for both branches, the UNet sees what it makes, and the prediction is of the noise in
    :math:`x_t` itself.

    Args:
        unet: Image UNet with temporal layers.
        mapping_network: M; None leaves the latents as they are.
        branches: Gives the conditions, full ones first: "context" (B, F, N, D), "images" (embeddings for IP-Adapters, or
            None) and "pictures" (for the ControlNet, (B, 3, n, H, W), or None). Called at every evaluation, so that a
            long video's contexts need not be in memory together.
        weight: Gives w - 1, read again at every evaluation.
        batched: Whether the branches are evaluated in one batch.
        control: The ControlNet, where the clip has pictures for it.
        processes: Who evaluates the branches.

    Shapes:
        sample (B, C, F, h, w), timestep () -> (B, C, F, h, w).

    Source: HARIVO, Eq. 2 and Sec. 3.5.
    """

    def __init__(
        self,
        unet: UNetMotionModel,
        mapping_network: MappingNetwork | None,
        *,
        branches: Callable[[], Branches],
        weight: Callable[[], float],
        batched: bool = True,
        control: ClipControl | None = None,
        processes: Processes = ALONE,
    ):
        self.unet, self.mapping_network, self.branches, self.weight = unet, mapping_network, branches, weight
        self.batched, self.control, self.processes = batched, control, processes
        self.dtype = unet.dtype  # a search through all parts of the network: once per clip

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Predict one clip, guided, in the scheduler's kind of prediction."""
        inner = sample.to(self.dtype)
        mapped = inner if self.mapping_network is None else self.mapping_network(inner)
        branches = [{**branch, "raw": inner} for branch in self.branches()]
        weights = [self.weight()] * (len(branches) - 1)
        how = {"batched": self.batched, "processes": self.processes}
        return guided(self.conditional, branches, weights, **how)(mapped, timestep).to(sample.dtype)

    def conditional(self, sample: Tensor, timestep: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        """Predict under one branch or several joined ones: mapped (n B, C, F, h, w) -> the same."""
        context, options = conditions["context"], {}
        if conditions["images"] is not None:
            options["added_cond_kwargs"] = {"image_embeds": list(conditions["images"])}
        if self.control is not None:
            seen = sample if self.control.mapped else conditions["raw"]
            features = self.control.residuals(seen, timestep, context, conditions["pictures"])
            if features is not None:
                options["down_block_additional_residuals"] = tuple(features[0])
                options["mid_block_additional_residual"] = features[1]
        text = rearrange(context, "b f n d -> (b f) n d")
        return self.unet(sample, on_device(timestep, sample.device), text, return_dict=False, **options)[0]
