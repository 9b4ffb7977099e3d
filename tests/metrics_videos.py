"""Small videos of which everything is known, and flows that are known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

SIZE = 24


def texture(size: int = SIZE, *, seed: int = 0) -> Tensor:
    """A smooth random picture ``(3, size, size)`` in [0.2, 0.8] that continues around its edges."""
    noise = torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))
    for axis in (1, 2):
        for _ in range(2):
            noise = (noise.roll(1, axis) + 2 * noise + noise.roll(-1, axis)) / 4
    low, high = noise.aminmax()
    return 0.2 + 0.6 * (noise - low) / (high - low)


def translated(num_frames: int, *, dx: int = 2, dy: int = 0, size: int = SIZE, seed: int = 0) -> Tensor:
    """A texture that moves by (dx, dy) pixels a frame around the edges, ``(F, 3, size, size)``."""
    still = texture(size, seed=seed)
    return torch.stack([still.roll((dy * frame, dx * frame), (1, 2)) for frame in range(num_frames)])


def wandering(num_frames: int, *, seed: int = 0) -> Tensor:
    """A video that never comes back: a new texture is faded in, and on to the next."""
    corners = [texture(seed=100 * seed + place) for place in range(num_frames // 8 + 2)]
    parts = [divmod(frame, 8) for frame in range(num_frames)]
    return torch.stack([torch.lerp(corners[place], corners[place + 1], step / 8) for place, step in parts])


def noisy(video: Tensor, strength: float, *, seed: int = 0) -> Tensor:
    """The video with independent normal noise on every pixel."""
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))
    return (video + strength * noise).clamp(0, 1)


def constant_flow(dx: float, dy: float = 0.0):
    """A flow that answers (dx, dy) to the first, third, ... question and (-dx, -dy) to the others: there, and back."""

    class Constant:
        name = "known"
        forward = True

        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            sign = 1 if self.forward else -1
            self.forward = not self.forward
            return sign * torch.tensor([float(dx), float(dy)]).view(2, 1, 1).expand(2, *a.shape[1:])

    return Constant()


def one_way(dx: float, dy: float = 0.0):
    """A flow that always answers (dx, dy)."""
    return lambda a, b: torch.tensor([float(dx), float(dy)]).view(2, 1, 1).expand(2, *a.shape[1:])


def brightness_flow(a: Tensor, b: Tensor) -> Tensor:
    """A flow to the right by ten times the brightness of the second frame: a grey video says how fast it moves."""
    return torch.stack([(10 * b.mean()).expand(b.shape[1:]), torch.zeros(b.shape[1:])])


def grey(*levels: float, size: int = 16) -> Tensor:
    """Flat frames of these levels."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, size, size).clone()
