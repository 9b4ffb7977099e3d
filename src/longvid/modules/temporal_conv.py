"""TemporalConv: convolutions over time in their 2-D form."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class TemporalConv(nn.Conv3d):
    r"""A 3-D convolution over time alone, computed as a 2-D one over time and place.

    With a kernel of k × 1 × 1 nothing crosses places, so those of a frame may lie in one row:

    .. math:: y_{f, p} = b + \sum_{j} W_j\, x_{f + j - (k - 1) / 2,\, p}, \quad p = (y, x)

    Weights and keys are those of `nn.Conv3d`, results differ by rounding.

    Shapes:
        (B, C, F, H, W) -> (B, C', F, H, W).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that Conv3d gives it)
        """Convolve over the frames."""
        flat = functional.conv2d(input.flatten(3), self.weight[..., 0], self.bias, padding=(int(self.padding[0]), 0))
        return flat.unflatten(3, input.shape[3:])


def is_temporal(conv: nn.Conv3d) -> bool:
    """Whether a convolution is over time alone, frame by frame, with zeros beyond the first and the last."""
    return (
        tuple(conv.kernel_size[1:]) == (1, 1)
        and {*conv.stride, *conv.dilation, conv.groups} == {1}
        and not isinstance(conv.padding, str)
        and tuple(conv.padding[1:]) == (0, 0)
        and conv.padding_mode == "zeros"
    )


def flatten_temporal_convs(network: nn.Module, flat: bool = True) -> int:
    """Compute the temporal convolutions inside a network in their 2-D form, or as 3-D ones again; returns how many are flat.

    Layers that hooks were put on, as offloading does, stay as they are.
    """
    kind, other = (nn.Conv3d, TemporalConv) if flat else (TemporalConv, nn.Conv3d)
    found = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is kind and is_temporal(child) and not hasattr(child, "_hf_hook")
    ]
    for parent, name, child in found:
        same = other.__new__(other)  # a shallow copy under the other class
        same.__dict__.update(child.__dict__)
        parent.add_module(name, same)
    return sum(type(module) is TemporalConv for module in network.modules())
