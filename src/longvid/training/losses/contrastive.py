"""HARIVO's decoupled contrastive loss on h-space, with the queue of negatives and the projection that it needs."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

STORES = ("h", "z")


def decoupled_contrastive_loss(
    anchor: Tensor, positive: Tensor, negatives: Tensor, *, temperature: float = 0.1, in_batch: bool = False
) -> Tensor:
    r"""Pull the two frames of a video together and push other videos away.

    .. math:: L_{DC} = -\frac{\langle z^{(1)}, z^{(2)} \rangle}{\tau}
        + \log \sum_{q \in Q} \exp \frac{\langle z^{(1)}, z^{(q)} \rangle}{\tau}

    The positive is not in the sum: that is what "decoupled" says. The mean over the batch is taken.

    Args:
        anchor: :math:`z^{(1)}` of every video, (B, D).
        positive: :math:`z^{(2)}`, (B, D).
        negatives: Frames of other videos, (Q, D).
        temperature: :math:`\tau`.
        in_batch: Whether both frames of the other videos of the batch are negatives too.

    Returns:
        A scalar; 0 where there is no negative.

    Source: HARIVO, Eq. 4, after Yeh et al. (arXiv:2110.06848).
    """
    others = anchor @ negatives.T / temperature
    if in_batch and len(anchor) > 1:
        here = anchor @ torch.cat([anchor, positive]).T / temperature
        own = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device).repeat(1, 2)
        others = torch.cat([others, here.masked_fill(own, -torch.inf)], dim=1)
    if not others.shape[1]:
        return (anchor.sum() + positive.sum()) * 0
    return (others.logsumexp(dim=1) - (anchor * positive).sum(dim=1) / temperature).mean()


class ContrastiveProjection(nn.Sequential):
    """Takes a bottleneck feature to the space of the contrastive loss; discarded after training.

    A convolution as large as the feature, and three linear layers, with SiLU between them.

    Args:
        channels: C.
        size: Height and width of the feature: latent size over the UNet's downsampling, 4 x 4 for Stable Diffusion 1.5 at
            256 pixels.

    Shapes:
        (N, C, height, width) -> (N, C).

    Source: HARIVO, the appendix's `Contrastive_projection`, whose resolution is that of the latents.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, channels, size, bias=False), nn.SiLU(), nn.Flatten()]
        for number in range(3):
            layers += [nn.SiLU()] * (number > 0) + [nn.Linear(channels, channels)]
        super().__init__(*layers)


class NegativeQueue(nn.Module):
    """The last entries of a stream, first in, first out; it is saved and loaded with the module that holds it.

    With several processes every one pushes to the queues of all, so that all queues stay equal.

    Args:
        size: Entries at most.
        shape: Of one entry.
    """

    entries: Tensor
    count: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"the queue must hold at least 1 entry; got queue_size={size}")
        self.register_buffer("entries", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return int(self.count)

    def filled(self) -> Tensor:
        """The entries, newest first, (len, ...)."""
        return self.entries[: len(self)]

    @torch.no_grad()
    def push(self, new: Tensor) -> None:
        """Take new entries (N, ...) in; the oldest leave."""
        new = _of_all_processes(new.detach()).to(self.entries)
        # A new tensor, not the old one changed: the gradient of a loss on the old entries may still be to come.
        self.entries = torch.cat([new.flip(0), self.entries])[: len(self.entries)]
        self.count = (self.count + len(new)).clamp(max=len(self.entries))


class ContrastiveLoss(nn.Module):
    """`decoupled_contrastive_loss` on the bottleneck features of videos, with its projection and its queue.

    Two different frames of every video are drawn. After the loss, the features of both go to the queue. Until there is
    something in the queue, the loss is 0.

    Args:
        channels: C.
        size: Height and width of the feature.
        queue_size: Frames of other videos that are remembered.
        temperature: See `decoupled_contrastive_loss`.
        normalize: Whether projected features have length 1. Without, products over 0.1 soon exceed what exp can hold.
        store: What the queue keeps: "h" features, which are projected anew in every step and so never go stale; "z"
            projected ones.
        in_batch: See `decoupled_contrastive_loss`.

    Shapes:
        hidden (B * F, C, height, width), the frames of one video next to each other -> a scalar.

    Raises:
        ValueError: for another store, a queue without entries, or features of another shape.

    Source: HARIVO, Sec. 3.4.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        queue_size: int = 1024,
        temperature: float = 0.1,
        normalize: bool = True,
        store: str = "h",
        in_batch: bool = False,
    ) -> None:
        super().__init__()
        if store not in STORES:
            raise ValueError(f"the queue stores one of {', '.join(STORES)}; got {store!r}")
        self.shape, self.store = (channels, *size), store
        self.temperature, self.normalize, self.in_batch = temperature, normalize, in_batch
        self.projection = ContrastiveProjection(channels, size)
        self.queue = NegativeQueue(queue_size, self.shape if store == "h" else (channels,))

    def forward(self, hidden: Tensor, num_frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Compute the loss and take the frames that it looked at into the queue."""
        if tuple(hidden.shape[1:]) != self.shape or len(hidden) % num_frames or num_frames < 2:
            raise ValueError(
                f"expected features (B * F, {', '.join(map(str, self.shape))}) of videos of at least 2 frames; got"
                f" {tuple(hidden.shape)} and {num_frames} frames"
            )
        videos = rearrange(hidden, "(b f) c h w -> b f c h w", f=num_frames)
        first, second = two_frames(len(videos), num_frames, generator, hidden.device)
        rows = torch.arange(len(videos), device=hidden.device)
        pair = torch.cat([videos[rows, first], videos[rows, second]])
        queued = self.queue.filled()
        if self.store == "h":
            projected, negatives = self._project(torch.cat([pair, queued.to(pair)])).split([len(pair), len(queued)])
        else:
            projected = self._project(pair)
            negatives = queued.to(projected)
        anchor, positive = projected.float().chunk(2)
        loss = decoupled_contrastive_loss(
            anchor, positive, negatives.float(), temperature=self.temperature, in_batch=self.in_batch
        )
        self.queue.push(pair if self.store == "h" else projected)
        return loss

    def _project(self, features: Tensor) -> Tensor:
        projected = self.projection(features)
        return F.normalize(projected.float(), dim=-1) if self.normalize else projected


def two_frames(
    num_videos: int, num_frames: int, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Two different frames of every video at random, each (B,)."""
    first = torch.randint(0, num_frames, (num_videos,), generator=generator, device=device)
    step = torch.randint(1, num_frames, (num_videos,), generator=generator, device=device)
    return first, (first + step) % num_frames


def _of_all_processes(values: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
