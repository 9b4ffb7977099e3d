"""Images as prompts, for the IP-Adapters that a UNet holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from diffusers.models.embeddings import ImageProjection
from torch import Tensor

from longvid.pipelines.inputs import for_every_video, to_unit

Embeddings: TypeAlias = list[Tensor]


def num_ip_adapters(unet: Any) -> int:
    """Count the IP-Adapters that a UNet holds."""
    projection = getattr(unet, "encoder_hid_proj", None)
    return len(getattr(projection, "image_projection_layers", ()))


def image_list(image: Any, counts: tuple[int, int], image_encoder: Any) -> list[Tensor]:
    """Turn the image of a request into tensors (3, H, W) in [0, 1], one or as many as prompts or videos.

    Raises:
        ValueError: if one is of another kind, there is another number of them, or nothing that can embed them.
    """
    if image_encoder is None:
        raise ValueError("image needs an image_encoder; this pipeline has none, so pass image_embeds")
    images = list(image) if isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4 else [image]
    pixels = [to_unit(each) for each in images]
    if len(pixels) not in {1, *counts}:
        raise ValueError(f"expected one image, or one for each of {counts[0]} prompts; got {len(pixels)}")
    return pixels


def embeddings(
    pipe: Any, images: Sequence[Tensor] | None, embeds: Sequence[Tensor] | None, *, counts: tuple[int, int]
) -> tuple[Embeddings, Embeddings] | None:
    """Give the embeddings of images for every IP-Adapter of a pipeline, and those that guidance holds them against.

    Args:
        pipe: With `unet`, `image_encoder` and `feature_extractor`.
        images: Pixels (3, H, W) in [0, 1], one or as many as prompts or videos; or None.
        embeds: Embeddings to use instead, one tensor for every adapter, (1 or B, N, E); held against zeros.
        counts: Prompts, and videos in the batch.

    Shapes:
        -> (B, 1, E) or (B, 1, N, E) for every adapter, twice; None if there is neither.
    """
    if images is not None:
        given, blank = embed_images(pipe, images)
    elif embeds is not None:
        given = [rows.to(pipe._device, pipe.unet.dtype) for rows in embeds]
        blank = [torch.zeros_like(rows) for rows in given]
    else:
        return None
    return tuple([for_every_video(rows, *counts, "image") for rows in both] for both in (given, blank))  # type: ignore[return-value]


def embed_images(pipe: Any, images: Sequence[Tensor]) -> tuple[Embeddings, Embeddings]:
    """Embed images for every IP-Adapter of a pipeline, and the blank image.

    An adapter that projects the image embedding gets that, and zeros for the blank; one that reads the patches gets the
    last hidden state but one, and that of a black image.

    Shapes:
        n images (3, H, W) in [0, 1] -> (n, 1, E) or (n, 1, N, E) for every adapter, twice.
    """
    encoder = pipe.image_encoder
    arrays = [(image * 255).round().byte().permute(1, 2, 0).cpu().numpy() for image in images]
    pixels = pipe.feature_extractor(images=arrays, return_tensors="pt").pixel_values
    pixels = pixels.to(pipe._device, next(encoder.parameters()).dtype)
    given, blank = [], []
    for layer in pipe.unet.encoder_hid_proj.image_projection_layers:
        if isinstance(layer, ImageProjection):
            rows = encoder(pixels).image_embeds
            empty = torch.zeros_like(rows)
        else:
            rows = encoder(pixels, output_hidden_states=True).hidden_states[-2]
            empty = encoder(torch.zeros_like(pixels), output_hidden_states=True).hidden_states[-2]
        given.append(rows.unsqueeze(1).to(pipe.unet.dtype))
        blank.append(empty.unsqueeze(1).to(pipe.unet.dtype))
    return given, blank
