"""Pixels to latents and back, frame by frame through an image VAE.

The VAE's scaling (and shift) factor is applied here and nowhere else: latents outside this file are always scaled.
The VAE sees at most `frames_per_batch` frames at once, so its activations never grow with the length of the video.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longvid.video.layout import check_video, fold_frames, unfold_frames

Generators = torch.Generator | Sequence[torch.Generator] | None


def spatial_factor(vae: Any) -> int:
    """How many pixels one latent covers along each axis of the image: 8 for the VAE of Stable Diffusion."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def encode_video(
    vae: Any,
    video: Tensor,
    *,
    frames_per_batch: int = 8,
    generator: Generators = None,
    sample: bool = False,
) -> Tensor:
    r"""Encode every frame of `video` and scale the result.

    .. math:: z = s\,(\mu(x) + \sigma(x)\,\epsilon - m)

    with the VAE's ``scaling_factor`` s and ``shift_factor`` m (0 where it has none); the noise is left out unless
    `sample`. The result does not depend on `frames_per_batch` beyond rounding (convolutions pick their kernel by batch
    size): with `sample`, the noise of the whole video is drawn at once. It has the dtype and device of `video`; only
    the VAE itself works in its own dtype. Place `video` on the VAE's device first.

    Args:
        vae: A diffusers ``AutoencoderKL`` or ``AutoencoderTiny`` (any object with the same ``encode`` and ``config``).
        video: Pixels in [-1, 1].
        frames_per_batch: Frames that go through the VAE at once; the bound on its memory.
        generator: Source of the noise when `sample`: one for the batch, or one per video.
        sample: Draw from the posterior instead of taking its mean.

    Shapes:
        (B, 3, F, H, W) -> (B, c, F, H / r, W / r) with r = :func:`spatial_factor`.

    Raises:
        ValueError: if `video` is no such tensor, H or W is no multiple of r, `frames_per_batch` is below 1 or the
            number of generators differs from B.
    """
    check_video(video, channels=vae.config.in_channels)
    factor, (height, width) = spatial_factor(vae), video.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"height and width must be multiples of {factor} for this VAE; got {height} x {width}")
    means, deviations = [], []
    for images in _batches(fold_frames(video), frames_per_batch):
        encoded = vae.encode(images.to(vae.dtype))
        if hasattr(encoded, "latent_dist"):
            means.append(encoded.latent_dist.mean.to(video.dtype))
            deviations.append(encoded.latent_dist.std.to(video.dtype) if sample else None)
        else:  # AutoencoderTiny is deterministic: it has no posterior to draw from
            means.append(encoded.latents.to(video.dtype))
            deviations.append(torch.zeros_like(means[-1]) if sample else None)
    latents = unfold_frames(torch.cat(means), video.shape[2])
    if sample:
        latents = latents + unfold_frames(torch.cat(deviations), video.shape[2]) * _noise_like(latents, generator)
    return (latents - _shift(vae)) * vae.config.scaling_factor


def decode_video(vae: Any, latents: Tensor, *, frames_per_batch: int = 8) -> Tensor:
    r"""Unscale `latents` and decode every frame.

    .. math:: x = D(z / s + m)

    The result is not clamped, so it can leave [-1, 1] by a little. It has the dtype and device of `latents`.

    Where `frames_per_batch` frames need more memory than there is, half as many are tried, down to one at a time; a
    warning then names the number that worked. The frames are those of a call with that number.

    Args:
        vae: The VAE that :func:`encode_video` used.
        latents: Scaled latents, as every part of this library hands them around.
        frames_per_batch: Frames that go through the VAE at once; the bound on its memory.

    Shapes:
        (B, c, F, h, w) -> (B, 3, F, h * r, w * r) with r = :func:`spatial_factor`; pixels around [-1, 1].

    Raises:
        ValueError: if `latents` is no such tensor or `frames_per_batch` is below 1.
        torch.OutOfMemoryError: if there is not the memory for a single frame.
    """
    check_video(latents, channels=vae.config.latent_channels, name="latents")
    unscaled = latents / vae.config.scaling_factor + _shift(vae)
    frames, images, given = [], fold_frames(unscaled), frames_per_batch
    _check_batch(frames_per_batch)
    while len(images):
        decoded = _decode(vae, images[:frames_per_batch])
        if decoded is None:  # outside of the handler, so that the failed call holds no memory
            frames_per_batch = min(frames_per_batch, len(images)) // 2
            if latents.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        frames.append(decoded.to(latents.dtype))
        images = images[frames_per_batch:]
    if frames_per_batch < given:
        warnings.warn(
            f"not enough memory to decode {given} frames at once; frames_per_batch={frames_per_batch} worked",
            stacklevel=2,
        )
    return unfold_frames(torch.cat(frames), latents.shape[2])


def _decode(vae: Any, images: Tensor) -> Tensor | None:
    """The decoded images, or None if they need more memory than there is; a single one raises."""
    try:
        return vae.decode(images.to(vae.dtype)).sample
    except RuntimeError as error:
        if len(images) == 1 or not _is_out_of_memory(error):
            raise
    return None


def _is_out_of_memory(error: RuntimeError) -> bool:
    # the allocators of the CPU and of MPS raise a plain RuntimeError
    words = ("DefaultCPUAllocator", "MPS backend out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def _batches(images: Tensor, frames_per_batch: int) -> Sequence[Tensor]:
    _check_batch(frames_per_batch)
    return images.split(frames_per_batch)


def _check_batch(frames_per_batch: int) -> None:
    if frames_per_batch < 1:
        raise ValueError(f"frames_per_batch must be at least 1; got {frames_per_batch}")


def _noise_like(latents: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise; with one generator per video, a video's noise does not depend on its neighbours."""
    if generator is None or isinstance(generator, torch.Generator):
        return _draw(latents.shape, generator, latents)
    if len(generator) != latents.shape[0]:
        raise ValueError(f"expected one generator per video, {latents.shape[0]} in all; got {len(generator)}")
    return torch.cat([_draw(latents[:1].shape, each, latents) for each in generator])


def _draw(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    # drawn where the generator lives, so that a CPU generator gives the same video on every device
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
