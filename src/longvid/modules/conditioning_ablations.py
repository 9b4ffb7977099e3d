"""The two models that CAM was measured against: features added to the skips, and frames joined to the input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self, cast

from diffusers import ConfigMixin, ModelMixin, UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from ..video.layout import check_video, fold_frames, unfold_frames
from .branch import ConditioningBranch
from .conditional_attention import copy_encoder, feature_channels, merge_skips, spread
from .frame_encoder import FrameEncoder
from .signature import extends_arguments_of
from .skip_merger import AdditionMerger


def masked_frames(frames: Tensor, num_frames: int, positions: Sequence[int] | None = None) -> Tensor:
    r"""Place conditioning frames in a chunk of blank ones and append the mask of the blank ones.

    .. math:: [V \odot (1 - M),\; M], \qquad M^f = 1 \text{ where frame } f \text{ is missing}

    Args:
        frames: Conditioning frames, pixels or latents.
        num_frames: Frames F of the chunk.
        positions: Where in the chunk they lie; None means at its beginning, as when sampling.

    Shapes:
        (B, C, F_cond, H, W) -> (B, C + 1, F, H, W).

    Raises:
        ValueError: if positions and frames differ in number, or a position is outside the chunk or taken twice.

    Source: StreamingT2V (arXiv:2403.14773), Appendix D.1.1 and Eq. 10. The product is printed there as V times M; Eq. 10
        and the mask for sampling, zero on the first 8 frames and one on the last 8, say that M marks missing frames.
        The mask is one channel here instead of three equal ones.
    """
    check_video(frames, name="frames")
    places = list(range(frames.shape[2])) if positions is None else list(positions)
    if len(places) != frames.shape[2] or len(set(places)) != len(places) or not set(places) <= set(range(num_frames)):
        raise ValueError(
            f"positions must be {frames.shape[2]} different numbers in [0, {num_frames}), one per conditioning frame;"
            f" got {places}"
        )
    batch, channels, _, height, width = frames.shape
    placed = frames.new_zeros(batch, channels + 1, num_frames, height, width)
    placed[:, -1] = 1
    placed[:, :-1, places] = frames
    placed[:, -1, places] = 0
    return placed


class AddedConditioning(ModelMixin, AttentionMixin, ConfigMixin):
    r"""Add-Cond: a branch over the whole chunk whose features are added to the skips, as in ControlNet.

    .. math:: (c_i)_i = \mathrm{Branch}(x_t, t, \tau;\; E_{cond}([V \odot (1 - M), M])), \qquad
        s_i' = s_i + \mathrm{ZeroConv}_i(c_i)

    Can be passed in place of a `ConditionalAttentionModule`. Freshly built, it leaves the UNet's output bit-identical.

    Args:
        args, kwargs: The arguments of the UNet to be conditioned (`diffusers.UNet3DConditionModel`).
        frame_encoder_widths: As in `ConditionalAttentionModule`.

    Source: StreamingT2V (arXiv:2403.14773), Appendix D.1.1 and Fig. 16.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["BasicTransformerBlock", "ResnetBlock2D"]
    conditions_on = "pixels"

    @register_to_config
    @extends_arguments_of(UNet3DConditionModel)
    def __init__(self, *args, frame_encoder_widths: Sequence[int] = (32, 96, 256, 512), **kwargs):
        super().__init__()
        self.branch = ConditioningBranch(*args, **kwargs)
        self.frame_encoder = FrameEncoder(4, frame_encoder_widths, self.branch.conv_in.out_channels)
        self.mergers = nn.ModuleList(AdditionMerger(channels) for channels in feature_channels(self.branch))

    @classmethod
    def from_unet(cls, unet: UNet3DConditionModel, **new: Any) -> Self:
        """Build the module for a UNet: the branch starts as a copy of its encoder, on its device and in its dtype.

        Args:
            new: New arguments of this class.
        """
        model = cast(Self, cls.from_config(unet.config, **new))
        copy_encoder(unet, model.branch)
        nn.Module.to(model, device=unet.device, dtype=unet.dtype)  # diffusers' own `to` warns of a cast
        return model.train(unet.training)

    @apply_forward_hook
    def encode_frames(self, frames: Tensor, *, num_frames: int, positions: Sequence[int] | None = None) -> Tensor:
        """Encode the conditioning frames and the mask.

        Args:
            frames: Pixels in [-1, 1].
            num_frames, positions: See `masked_frames`.

        Shapes:
            (B, 3, F_cond, H, W) -> (B, C0, F, h, w), the size of the latents.
        """
        return self.frame_encoder(masked_frames(check_video(frames, channels=3, name="frames"), num_frames, positions))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        encoded_frames: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute the features of one evaluation, for `unet_options`.

        Shapes:
            sample (B, C, F, h, w), timestep () or (B,), text (B, N, D) or (B, F, N, D), encoded_frames
            (1 or B, C0, F, h, w) -> the skips' features, then the middle's, each (B * F, C_i, h_i, w_i).

        Raises:
            ValueError: if the shapes do not fit together.
        """
        features = spread(encoded_frames, check_video(sample, name="sample").shape[0])
        return self.branch(sample, timestep, encoder_hidden_states, features=features)

    def unet_options(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Keyword arguments that make a `VideoUNet` add these features to its skips."""
        return {"skip_merger": partial(merge_skips, tuple(self.mergers), features)}

    def _set_gradient_checkpointing(self, *args: Any, **options: Any) -> None:
        self.branch._set_gradient_checkpointing(*args, **options)


class ConcatenatedConditioning(ModelMixin, ConfigMixin):
    r"""Conc-Cond: the conditioning latents and their mask as further input channels of the UNet, and nothing else.

    .. math:: \mathrm{conv}([x_t, E(V) \odot (1 - M), M]) = \mathrm{conv}_{in}(x_t) + \mathrm{conv}_{new}([E(V) \odot
        (1 - M), M])

    A convolution of joined channels is a sum of convolutions, so the new input channels are a convolution of their own,
    and the UNet keeps its weights. It can be passed in place of a `ConditionalAttentionModule`. Freshly built, it leaves
    the UNet's output bit-identical.

    Args:
        latent_channels: Channels of the latents E(V).
        out_channels: Channels behind the first convolution of the UNet.

    Source: StreamingT2V (arXiv:2403.14773), Appendix D.1.1.
    """

    conditions_on = "latents"

    @register_to_config
    def __init__(self, latent_channels: int = 4, out_channels: int = 320):
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels + 1, out_channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.conv_in.weight)

    @classmethod
    def from_unet(cls, unet: UNet3DConditionModel) -> Self:
        """Build the module for a UNet, on its device and in its dtype."""
        model = cls(latent_channels=unet.conv_in.in_channels, out_channels=unet.conv_in.out_channels)
        nn.Module.to(model, device=unet.device, dtype=unet.dtype)
        return model.train(unet.training)

    @apply_forward_hook
    def encode_frames(self, frames: Tensor, *, num_frames: int, positions: Sequence[int] | None = None) -> Tensor:
        """Convolve the conditioning frames and the mask.

        Args:
            frames: Latents of the conditioning frames.
            num_frames, positions: See `masked_frames`.

        Shapes:
            (B, C, F_cond, h, w) -> (B, C0, F, h, w).
        """
        channels = self.config["latent_channels"]
        placed = masked_frames(check_video(frames, channels=channels, name="frames"), num_frames, positions)
        return unfold_frames(self.conv_in(fold_frames(placed)), num_frames)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        encoded_frames: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the encoded frames for the batch of `sample`: here the features depend on nothing else."""
        return (spread(encoded_frames, check_video(sample, name="sample").shape[0]),)

    def unet_options(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Keyword arguments that make a `VideoUNet` read these features at its entrance."""
        return {"input_features": features[0]}
