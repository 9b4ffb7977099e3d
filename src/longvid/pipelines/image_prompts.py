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


def image_list(image: Any, counts: tuple[int, int]) -> list[Tensor]:
    """Turn the image of a request into tensors (3, H, W) in [0, 1], one or as many as prompts or videos.

    Raises:
        ValueError: if one is of another kind, or there is another number of them.
    """
    images = list(image) if isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4 else [image]
    pixels = [to_unit(each) for each in images]
    if len(pixels) not in {1, *counts}:
        raise ValueError(f"expected one image, or one for each of {counts[0]} prompts; got {len(pixels)}")
    return pixels


def embed_images(
    unet: Any, image_encoder: Any, feature_extractor: Any, images: Sequence[Tensor], counts: tuple[int, int]
) -> tuple[Embeddings, Embeddings]:
    """Embed images for every IP-Adapter of a UNet, and the blank image that guidance holds them against.

    An adapter that projects the image embedding gets that, and zeros for the blank; one that reads the patches gets the
    last hidden state but one, and that of a black image.

    Args:
        unet: Holds the adapters.
        image_encoder: CLIP image model.
        feature_extractor: Its image processor.
        images: Pixels (3, H, W) in [0, 1], one or as many as prompts or videos.
        counts: Prompts, and videos in the batch.

    Shapes:
        -> (B, 1, E) or (B, 1, N, E) for every adapter, twice.
    """
    arrays = [(image * 255).round().byte().permute(1, 2, 0).cpu().numpy() for image in images]
    parameter = next(image_encoder.parameters())
    pixels = feature_extractor(images=arrays, return_tensors="pt").pixel_values.to(parameter.device, parameter.dtype)
    given, blank = [], []
    for layer in unet.encoder_hid_proj.image_projection_layers:
        if isinstance(layer, ImageProjection):
            rows = image_encoder(pixels).image_embeds
            empty = torch.zeros_like(rows)
        else:
            rows = image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
            empty = image_encoder(torch.zeros_like(pixels), output_hidden_states=True).hidden_states[-2]
        for rows_of, into in ((rows, given), (empty, blank)):
            into.append(for_every_video(rows_of, *counts, "image").unsqueeze(1).to(unet.dtype))
    return given, blank
