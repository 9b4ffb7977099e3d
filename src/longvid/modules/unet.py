"""VideoUNet: diffusers' 3-D UNet with one explicit forward in stages, open where longvid adds its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeAlias, cast

import torch
from diffusers import UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..video.layout import check_video, fold_frames, unfold_frames
from .attention import install_lean_attention
from .signature import extends_arguments_of
from .text_layers import Text, check_text, install_text_layers

Skips: TypeAlias = tuple[Tensor, ...]
SkipMerger: TypeAlias = Callable[[Tensor, Skips, int], tuple[Tensor, Skips]]


class VideoUNet(UNet3DConditionModel, PeftAdapterMixin):
    r"""The UNet of ModelScope's text-to-video model, as five stages that other parts can join.

    .. math:: h_0 = \mathrm{enter}(x), \quad (h, s) = \mathrm{encode}(h_0), \quad h' = \mathrm{middle}(h), \quad
        (h'', s') = \mathrm{merge}(h', s), \quad \hat\epsilon = \mathrm{decode}(h'', s')

    State-dict keys are those of `diffusers.UNet3DConditionModel`, and without a merger the output is bit-identical to
    its. New are: features added behind the first convolution, a merger that changes what the encoder hands to the
    decoder, text per frame or per layer, and gradient checkpointing, one checkpoint per block.

    Args:
        args, kwargs: The arguments of `diffusers.UNet3DConditionModel`.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 3 and Fig. 3; network of ModelScope (arXiv:2308.06571).
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["BasicTransformerBlock", "ResnetBlock2D"]
    _repeated_blocks = ["BasicTransformerBlock"]
    gradient_checkpointing = False

    @register_to_config
    @extends_arguments_of(UNet3DConditionModel)
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_text_layers = install_text_layers([*self.down_blocks, self.mid_block, *self.up_blocks])
        install_lean_attention(self)

    @classmethod
    def from_unet(cls, unet: UNet3DConditionModel) -> Self:
        """See a stock UNet as a `VideoUNet`: the weights are shared, not copied."""
        with torch.device("meta"):
            model = cast(Self, cls.from_config(unet.config))
        weights = dict(unet.named_parameters()) | dict(unet.named_buffers())
        model.load_state_dict(weights, assign=True)
        return model.train(unet.training)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Text,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        down_block_additional_residuals: Sequence[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        return_dict: bool = True,
        *,
        input_features: Tensor | None = None,
        skip_merger: SkipMerger | None = None,
    ) -> UNet3DConditionOutput | tuple[Tensor]:
        """Predict the noise (or whatever the network was trained for) in `sample`.

        Args:
            encoder_hidden_states: Text per sample or per frame, or a sequence with a text for each of the
                `num_text_layers` text layers, such as an `AppearancePreservationModule` makes.
            class_labels, attention_mask: Accepted as by the stock network, whose blocks use neither.
            input_features: Added to the output of the first convolution.
            skip_merger: Called as `skip_merger(hidden, skips, num_frames)` behind the middle block; returns both,
                changed for the decoder. What the encoder itself computes stays as it is.

        Shapes:
            sample (B, C, F, H, W), timestep () or (B,), text (B, N, D) or (B, F, N, D), input_features
            (B, C0, F, H, W) -> (B, out_channels, F, H, W). The merger sees (B * F, C_i, H_i, W_i), frames of a sample
            next to each other.

        Raises:
            ValueError: if sample, text or features have a wrong shape.
        """
        check_video(sample, channels=self.conv_in.in_channels, name="sample")
        num_frames, (height, width) = sample.shape[2], sample.shape[-2:]
        embedding = self.embed(timestep, sample, timestep_cond)
        run = self.runner(sample, encoder_hidden_states, attention_mask, cross_attention_kwargs)
        hidden = self.enter(sample, input_features, cross_attention_kwargs)
        hidden, skips = self.encode(hidden, embedding, run)
        if down_block_additional_residuals is not None:
            skips = tuple(a + b for a, b in zip(skips, down_block_additional_residuals, strict=True))
        hidden = run(self.mid_block, hidden, embedding)
        if mid_block_additional_residual is not None:
            hidden = hidden + mid_block_additional_residual
        if skip_merger is not None:
            hidden, skips = skip_merger(hidden, skips, num_frames)
        fits = height % 2**self.num_upsamplers == 0 and width % 2**self.num_upsamplers == 0
        hidden = self.decode(hidden, skips, embedding, run, keep_sizes=not fits)

        output = unfold_frames(hidden, num_frames)
        return UNet3DConditionOutput(sample=output) if return_dict else (output,)

    def embed(self, timestep: Tensor | float | int, sample: Tensor, timestep_cond: Tensor | None = None) -> Tensor:
        """Time embedding of every frame of `sample`, (B, C, F, H, W): timestep () or (B,) -> (B * F, D)."""
        batch, _, num_frames, *_ = sample.shape
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        sinusoid = self.time_proj(timesteps).to(sample.dtype)
        embedding = self.time_embedding(sinusoid, timestep_cond)
        return embedding.repeat_interleave(num_frames, dim=0, output_size=batch * num_frames)

    def enter(
        self,
        sample: Tensor,
        input_features: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        """First convolution and first temporal transformer: (B, C, F, H, W) -> (B * F, C0, H, W).

        Raises:
            ValueError: if `input_features` is not (B, C0, F, H, W).
        """
        num_frames = sample.shape[2]
        hidden = self.conv_in(fold_frames(sample))
        if input_features is not None:
            expected = (sample.shape[0], hidden.shape[1], *sample.shape[2:])
            if tuple(input_features.shape) != expected:
                raise ValueError(f"input_features must be {expected}; got {tuple(input_features.shape)}")
            hidden = hidden + fold_frames(input_features)
        return self.transformer_in(
            hidden, num_frames=num_frames, cross_attention_kwargs=cross_attention_kwargs, return_dict=False
        )[0]

    def encode(self, hidden: Tensor, embedding: Tensor, run: Callable[..., Any]) -> tuple[Tensor, Skips]:
        """Run the down blocks; the skips begin with `hidden` as it came in."""
        skips = (hidden,)
        for block in self.down_blocks:
            hidden, new = run(block, hidden, embedding)
            skips += new
        return hidden, skips

    def decode(
        self, hidden: Tensor, skips: Skips, embedding: Tensor, run: Callable[..., Any], *, keep_sizes: bool
    ) -> Tensor:
        """Run the up blocks and the last convolution; `keep_sizes` upsamples to the sizes of the skips."""
        for block in self.up_blocks:
            used = len(block.resnets)  # type: ignore[arg-type]
            taken, skips = skips[-used:], skips[:-used]
            size = skips[-1].shape[2:] if keep_sizes and skips else None
            hidden = run(block, hidden, taken, embedding, upsample_size=size)
        if self.conv_norm_out is not None:
            hidden = self.conv_act(self.conv_norm_out(hidden))  # type: ignore[misc]
        return self.conv_out(hidden)

    def runner(
        self,
        sample: Tensor,
        text: Text,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> Callable[..., Any]:
        """How `encode` and `decode` call a block: `run(block, *tensors, **options)`.

        It adds the number of frames, and the text where the block reads text, and puts the call under a checkpoint where
        gradients are checkpointed.

        Raises:
            ValueError: if the text does not fit `sample`.
        """
        batch, _, num_frames, *_ = sample.shape
        if attention_mask is not None:
            attention_mask = ((1 - attention_mask.to(sample.dtype)) * -10000.0).unsqueeze(1)
        text_options = {
            "encoder_hidden_states": check_text(
                text, batch=batch, num_frames=num_frames, num_layers=self.num_text_layers
            ),
            "attention_mask": attention_mask,
            "cross_attention_kwargs": cross_attention_kwargs,
        }

        def run(block: nn.Module, *tensors: Any, **options: Any) -> Any:
            if getattr(block, "has_cross_attention", False):
                options |= text_options
            call = partial(block, num_frames=num_frames, **options)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                return self._gradient_checkpointing_func(call, *tensors)
            return call(*tensors)

        return run

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint
    ) -> None:
        """Checkpoint whole blocks. The flags inside the blocks stay off: a checkpoint in a checkpoint computes twice."""
        self.gradient_checkpointing = enable
        self._gradient_checkpointing_func = gradient_checkpointing_func
