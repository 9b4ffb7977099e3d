"""FrameEncoder: conditioning frames, pixels, as features of latent size (StreamingT2V)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import silu

from ..video.layout import check_video, fold_frames, unfold_frames


class FrameEncoder(nn.Module):
    """Encode frames one by one with plain convolutions; every width but the first halves the frame.

    Freshly built, the last convolution is zero, and so are the features. The released model has no normalisation here,
    against what the paper says.

    Args:
        in_channels: Channels of a frame.
        widths: Channels of the levels; n of them reduce a frame by 2**(n - 1).
        out_channels: Channels of the features.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 4.1, the encoder E_cond and its zero convolution.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], out_channels: int):
        super().__init__()
        self.downscale_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in zip(widths[:-1], widths[1:], strict=True):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, stride=2, padding=1))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """Encode a video of frames.

        Shapes:
            (B, in_channels, F, H, W) -> (B, out_channels, F, H / factor, W / factor).

        Raises:
            ValueError: if the channels are others, or a side is no multiple of the factor.
        """
        check_video(frames, channels=self.conv_in.in_channels, name="frames")
        factor = self.downscale_factor
        if frames.shape[-2] % factor or frames.shape[-1] % factor:
            raise ValueError(f"frames must have sides that are multiples of {factor}; got {tuple(frames.shape)}")
        hidden = silu(self.conv_in(fold_frames(frames)))
        for convolution in self.blocks:
            hidden = silu(convolution(hidden))
        return unfold_frames(self.conv_out(hidden), frames.shape[2])
