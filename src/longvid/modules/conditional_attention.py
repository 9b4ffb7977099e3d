"""ConditionalAttentionModule (CAM): what the last frames of a chunk hand to the next one (StreamingT2V)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, Self, cast

from diffusers import ConfigMixin, ModelMixin, UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from ..video.layout import check_video
from .branch import ConditioningBranch
from .frame_encoder import FrameEncoder
from .signature import extends_arguments_of
from .skip_merger import AttentionMerger
from .unet import Skips


class FrameConditioning(Protocol):
    """What a module must offer to condition a `VideoUNet` on frames: CAM, or one of its alternatives.

    .. code-block:: python

        encoded = cam.encode_frames(frames, num_frames=16)                 # once per chunk
        features = cam(sample, timestep, text, encoded_frames=encoded)     # once per evaluation
        unet(sample, timestep, text, **cam.unet_options(features))
    """

    conditions_on: str
    """"pixels" in [-1, 1] or "latents" of the frames."""

    def encode_frames(self, frames: Tensor, *, num_frames: int) -> Tensor:
        """Encode what depends on neither time nor text; `num_frames` is the length of the chunk to come."""
        ...

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        encoded_frames: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute the features of one evaluation."""
        ...

    def unet_options(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Keyword arguments that make the UNet use the features."""
        ...


class ConditionalAttentionModule(ModelMixin, AttentionMixin, ConfigMixin):
    r"""Condition every frame of a chunk on the last frames of the chunk before, by attention at the skip connections.

    .. math:: (c_i)_i = \mathrm{Branch}(x_t^{1:F_{cond}}, t, \tau;\; E_{cond}(v)), \qquad
        s_i' = s_i + P_{out,i}\, \mathrm{MHA}(P_{in,i}\, \mathrm{GN}(s_i),\, c_i,\, c_i)

    The first :math:`F_{cond}` frames of a chunk make the conditioning frames :math:`v` again, so the branch, a copy of
    the UNet's encoder, looks at the noisy latents of just those. Its features change with every step; only the encoded
    frames can be kept. Freshly built, it leaves the UNet's output bit-identical.

    Args:
        args, kwargs: The arguments of the UNet to be conditioned (`diffusers.UNet3DConditionModel`).
        frame_encoder_widths: Channels of the levels of the frame encoder; n of them serve a VAE that reduces frames
            by 2**(n - 1).
        merger_head_dim: Channels of an attention head in the mergers; None means the UNet's `attention_head_dim`.

    Raises:
        ValueError: if a level's channels are no multiple of `merger_head_dim`.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 4.1, Eq. 4-5. That the branch sees the first frames only is read
        from the released code; the paper does not say.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["BasicTransformerBlock", "ResnetBlock2D", "AttentionMerger"]
    conditions_on = "pixels"

    @register_to_config
    @extends_arguments_of(UNet3DConditionModel)
    def __init__(
        self,
        *args,
        frame_encoder_widths: Sequence[int] = (32, 96, 256, 512),
        merger_head_dim: int | None = None,
        **kwargs,
    ):
        super().__init__()
        self.branch = ConditioningBranch(*args, **kwargs)
        self.frame_encoder = FrameEncoder(3, frame_encoder_widths, self.branch.conv_in.out_channels)
        head_dim = merger_head_dim or self.branch.config["attention_head_dim"]
        num_groups = self.branch.config["norm_num_groups"]
        *skips, middle = [AttentionMerger(channels, head_dim, num_groups) for channels in feature_channels(self.branch)]
        self.skip_mergers = nn.ModuleList(skips)
        self.mid_merger = middle

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
    def encode_frames(self, frames: Tensor, *, num_frames: int) -> Tensor:
        """Encode the conditioning frames; the result serves every step of a chunk and every guidance branch.

        Args:
            frames: Pixels in [-1, 1].
            num_frames: Frames F of the chunk to be made.

        Shapes:
            (B, 3, F_cond, H, W) -> (B, C0, F_cond, h, w), the size of the latents.

        Raises:
            ValueError: if there are more conditioning frames than frames, or their shape does not fit.
        """
        check_video(frames, channels=3, name="frames")
        if frames.shape[2] > num_frames:
            raise ValueError(f"expected at most {num_frames} conditioning frames, a chunk; got {frames.shape[2]}")
        return self.frame_encoder(frames)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        encoded_frames: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute the features of one evaluation, for `unet_options`.

        Args:
            sample: Noisy latents of the whole chunk; the first F_cond frames are used.
            encoder_hidden_states: Text of the prompt, without image tokens.
            encoded_frames: What `encode_frames` returned; a batch of 1 serves every sample.

        Shapes:
            sample (B, C, F, h, w), timestep () or (B,), text (B, N, D) or (B, F, N, D), encoded_frames
            (1 or B, C0, F_cond, h, w) -> the skips' features, then the middle's, each (B * F_cond, C_i, h_i, w_i).

        Raises:
            ValueError: if the shapes do not fit together.
        """
        num_context = encoded_frames.shape[2] if encoded_frames.ndim == 5 else 0
        check_video(sample, name="sample")
        if not 0 < num_context <= sample.shape[2]:
            raise ValueError(
                f"encoded_frames must be (B, C, F, h, w) with 1 to {sample.shape[2]} frames; got"
                f" {tuple(encoded_frames.shape)}"
            )
        text = encoder_hidden_states
        if text.ndim == 4:
            text = text[:, :num_context]
        features = spread(encoded_frames, sample.shape[0])
        return self.branch(sample[:, :, :num_context], timestep, text, features=features)

    def unet_options(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Keyword arguments that make a `VideoUNet` merge these features into its skips."""
        return {"skip_merger": partial(merge_skips, (*self.skip_mergers, self.mid_merger), features)}

    def _set_gradient_checkpointing(self, *args: Any, **options: Any) -> None:
        self.branch._set_gradient_checkpointing(*args, **options)


def merge_skips(
    mergers: Sequence[Callable[[Tensor, Tensor, int], Tensor]],
    features: Sequence[Tensor],
    hidden: Tensor,
    skips: Skips,
    num_frames: int,
) -> tuple[Tensor, Skips]:
    """Merge features into the skips and the output of the middle block; mergers and features have the middle last.

    Raises:
        ValueError: if there are not as many features as skips and one more.
    """
    if not len(mergers) == len(features) == len(skips) + 1:
        raise ValueError(
            f"expected a merger and features for each of {len(skips)} skips and the middle; got {len(mergers)} mergers"
            f" and {len(features)} features"
        )
    *merged, hidden = (
        merge(value, feature, num_frames)
        for merge, value, feature in zip(mergers, (*skips, hidden), features, strict=True)
    )
    return hidden, tuple(merged)


def feature_channels(branch: ConditioningBranch) -> Iterator[int]:
    """Channels of every skip of a branch, then of its middle block."""
    widths = branch.config["block_out_channels"]
    yield widths[0]
    for width, block in zip(widths, branch.down_blocks, strict=True):
        yield from [width] * (len(block.resnets) + len(block.downsamplers or ()))  # type: ignore[arg-type]
    yield widths[-1]


def copy_encoder(unet: UNet3DConditionModel, branch: ConditioningBranch) -> None:
    """Copy the encoder of a UNet into a branch of the same configuration.

    Raises:
        ValueError: if the UNet lacks weights that its configuration asks for, as with adapters in place.
    """
    weights, names = unet.state_dict(), branch.state_dict().keys()
    if missing := sorted(names - weights.keys()):
        raise ValueError(f"the UNet lacks weights of a plain one, first {missing[0]}; take adapters off before")
    branch.load_state_dict({name: weights[name] for name in names})


def spread(features: Tensor, batch: int) -> Tensor:
    """Repeat features of batch 1 over the batch.

    Raises:
        ValueError: if their batch is neither 1 nor `batch`.
    """
    if features.shape[0] not in (1, batch):
        raise ValueError(f"encoded_frames must have batch 1 or {batch}; got {features.shape[0]}")
    return features.expand(batch, -1, -1, -1, -1)
