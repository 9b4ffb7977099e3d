"""ConditioningBranch: the encoder half of a VideoUNet, whose features condition another one."""

from __future__ import annotations

from diffusers import UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ..video.layout import check_video, fold_frames
from .signature import extends_arguments_of
from .text_layers import Text
from .unet import Skips, VideoUNet


class ConditioningBranch(VideoUNet):
    r"""Encoder and middle block of a `VideoUNet`, with features added behind the first temporal transformer.

    .. math:: h_0 = \mathrm{enter}(x_t) + f, \quad (h, s) = \mathrm{encode}(h_0), \quad h' = \mathrm{middle}(h)

    State-dict keys are those of the UNet without decoder.

    Args:
        args, kwargs: The arguments of `diffusers.UNet3DConditionModel`, those of the UNet to be conditioned.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 4.1.
    """

    @register_to_config
    @extends_arguments_of(UNet3DConditionModel)
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_text_layers -= sum(len(getattr(block, "attentions", ())) for block in self.up_blocks)
        del self.up_blocks, self.conv_norm_out, self.conv_act, self.conv_out

    def forward(
        self, sample: Tensor, timestep: Tensor | float | int, encoder_hidden_states: Text, *, features: Tensor
    ) -> Skips:
        """Compute the features of every skip connection, then that of the middle block.

        Shapes:
            sample (B, C, F, H, W), timestep () or (B,), text (B, N, D) or (B, F, N, D), features (B, C0, F, H, W) ->
            tuple of (B * F, C_i, H_i, W_i).

        Raises:
            ValueError: if sample, text or features have a wrong shape.
        """
        batch, _, num_frames, *size = check_video(sample, channels=self.conv_in.in_channels, name="sample").shape
        expected = (batch, self.conv_in.out_channels, num_frames, *size)
        if tuple(features.shape) != expected:
            raise ValueError(f"features must be {expected}; got {tuple(features.shape)}")
        embedding, run = self.embed(timestep, sample), self.runner(sample, encoder_hidden_states)
        hidden = self.enter(sample) + fold_frames(features)
        hidden, skips = self.encode(hidden, embedding, run)
        return (*skips, run(self.mid_block, hidden, embedding))
