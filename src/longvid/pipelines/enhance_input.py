"""The video that is enhanced, encoded a few frames at a time into latents on the host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from longvid.pipelines.enhance_request import EnhanceRequest
from longvid.pipelines.frame_sizes import padded, scaled
from longvid.pipelines.latent_places import COPIES
from longvid.video.codec import encode_video
from longvid.video.host_memory import HostMemory, TensorSpool, host_memory


def memory_for(shape: Sequence[int], request: EnhanceRequest) -> HostMemory:
    """Give the memory for latents (B, C, F, h, w) of a whole video, float32."""
    return host_memory(COPIES * torch.Size(shape).numel() * 4, request.host_memory_limit or 0)


def encoded_input(pipe: Any, request: EnhanceRequest, batch_size: int, bar: Any) -> Tensor:
    """Read, scale, pad and encode the video, and repeat it for the batch; the length may turn out while it is read.

    Args:
        pipe: The pipeline, with its VAE on the device of the stream.
        request: Its checked request.
        batch_size: B.
        bar: Is told of every frame.

    Shapes:
        -> (B, C, F, h, w) on the host, at the padded size.
    """
    count, size = request.frames_per_batch or 0, (request.height or 0, request.width or 0)
    with closing(TensorSpool((request.host_memory_limit or 0) // COPIES)) as spool:
        while frames := list(islice(request.video.frames, count)):
            pixels = padded(scaled(torch.stack(frames, dim=2), *size), pipe.size_multiple) * 2 - 1
            spool.write(encode_video(pipe.vae, pixels.to(pipe._device), frames_per_batch=count))
            bar.update(len(frames))
        videos, channels, _, height, width = spool.shapes[0]
        shape = (batch_size, channels, sum(part[2] for part in spool.shapes), height, width)
        latents, first = memory_for(shape, request).empty(shape), 0
        for part in spool.read():
            latents[:, :, first : first + part.shape[2]] = part.repeat_interleave(batch_size // videos, dim=0)
            first += part.shape[2]
    return latents
