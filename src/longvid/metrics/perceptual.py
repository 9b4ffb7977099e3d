"""LPIPS: the distance of two pictures in the features of a network that was trained to tell things apart."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longvid.metrics.weights import load_exactly, read_weights

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10
# (kernel, stride, padding) of the convolutions, and the layers after which torchvision's networks are read
ALEX_TAPS, VGG_TAPS = (1, 4, 7, 9, 11), (3, 8, 15, 22, 29)
VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def alexnet_features(widths: tuple[int, ...] = (64, 192, 384, 256, 256)) -> nn.Sequential:
    """The convolutions of torchvision's AlexNet, with its places, up to the last activation."""
    one, two, three, four, five = widths
    return nn.Sequential(
        nn.Conv2d(3, one, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(one, two, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(two, three, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(three, four, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(four, five, 3, 1, 1), nn.ReLU(),
    )  # fmt: skip


def vgg16_features(widths: tuple[tuple[int, ...], ...] = VGG_WIDTHS) -> nn.Sequential:
    """The convolutions of torchvision's VGG-16, with its places, up to the last activation."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in widths:
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


class PerceptualDistance(nn.Module):
    r"""LPIPS of two pictures.

    .. math:: d(x, y) = \sum_l \frac{1}{H_l W_l} \sum_{h, w} w_l \cdot (\hat f_l(x)_{hw} - \hat f_l(y)_{hw})^2

    with the features of five layers, each divided by its length over the channels.

    Args:
        features: The backbone's layers.
        taps: Places in `features` after which it is read.
        name: For the results.

    Shapes:
        two times ``(B, 3, H, W)`` in [0, 1] -> ``(B,)``.
    Source: Zhang et al. 2018, Eq. 1; version 0.1 of the authors' weights.
    """

    def __init__(self, features: nn.Sequential, taps: tuple[int, ...], *, name: str) -> None:
        super().__init__()
        self.features, self.taps, self.name = features, taps, name
        widths = [cast(nn.Conv2d, layer).out_channels for layer in self._tapped()]
        self.weights = nn.ParameterList([nn.Parameter(torch.ones(width), requires_grad=False) for width in widths])

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.compare(self.read(left), self.read(right))

    def read(self, frames: Tensor) -> list[Tensor]:
        """The normalised features of frames ``(B, 3, H, W)`` in [0, 1], one tensor per layer."""
        shift, scale = (torch.tensor(values, device=frames.device)[:, None, None] for values in (SHIFT, SCALE))
        hidden, read = (2 * frames - 1 - shift) / scale, []
        for place, layer in enumerate(self.features):
            hidden = layer(hidden)
            if place in self.taps:
                read.append(hidden / (hidden.square().sum(1, keepdim=True).sqrt() + EPSILON))
        return read

    def compare(self, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """The distance of what :meth:`read` gave of two batches, of which either may be one picture: ``(B,)``."""
        parts = [
            ((a - b).square() * weight[:, None, None]).sum(1).mean((-2, -1))
            for a, b, weight in zip(left, right, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def smallest_side(self) -> int:
        """The shortest height or width that the backbone can read, in pixels."""
        side = 1
        while not self._fits(side):
            side += 1
        return side

    def _fits(self, side: int) -> bool:
        for layer in self.features:
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
                kernel, stride, padding = (
                    value if isinstance(value, int) else value[0]
                    for value in (layer.kernel_size, layer.stride, layer.padding)
                )
                side = (side + 2 * int(padding) - int(kernel)) // int(stride) + 1
                if side < 1:
                    return False
        return True

    def _tapped(self) -> list[nn.Module]:
        return [
            next(layer for layer in reversed(list(self.features)[: tap + 1]) if isinstance(layer, nn.Conv2d))
            for tap in self.taps
        ]


@lru_cache(maxsize=1)
def load_perceptual(backbone: Path, linear: Path, device: torch.device) -> PerceptualDistance:
    """LPIPS from torchvision's weights of AlexNet or VGG-16 and the linear weights of the LPIPS authors.

    Args:
        backbone: Such as ``alexnet-owt-7be5be79.pth`` or ``vgg16-397923af.pth``.
        linear: ``alex.pth`` or ``vgg.pth`` of LPIPS v0.1, for the same network.
        device: Where it is put.

    Raises:
        ValueError: if a file holds another network.
    """
    weights = {name: value for name, value in read_weights(backbone).items() if name.startswith("features.")}
    first = weights.get("features.0.weight")
    if first is None or first.shape[1:] not in {(3, 11, 11), (3, 3, 3)}:
        raise ValueError(f"{backbone} holds neither torchvision's AlexNet nor its VGG-16")
    is_alex = first.shape[-1] == 11
    features = alexnet_features() if is_alex else vgg16_features()
    network = PerceptualDistance(features, ALEX_TAPS if is_alex else VGG_TAPS, name="AlexNet" if is_alex else "VGG-16")
    renamed = {name.removeprefix("features."): value for name, value in weights.items()}
    load_exactly(features, renamed, backbone, f"torchvision's {network.name}")
    read = read_weights(linear)
    for place, parameter in enumerate(network.weights):
        value = read.get(f"lin{place}.model.1.weight")
        if value is None or value.numel() != parameter.numel():
            raise ValueError(f"{linear} is not the linear weights of LPIPS v0.1 for {network.name} ({place + 1} of 5)")
        parameter.data = F.relu(value.flatten())
    return network.eval().requires_grad_(False).to(device)
