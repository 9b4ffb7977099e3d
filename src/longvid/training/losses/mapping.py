"""HARIVO's regularisation of the mapping network."""

from __future__ import annotations

import torch
from torch import Tensor


def mapping_regularisation(
    video: Tensor, image: Tensor, timesteps: Tensor, num_train_timesteps: int = 1000, *, detach: bool = False
) -> Tensor:
    r"""Keep the video model near the image model where little noise is left.

    .. math:: L_{reg} = \lambda_t\, \mathrm{mean}\, \bigl( f_{M,\theta,\phi}(x_t, t, c) - f_{M,\phi}(x_t, t, c) \bigr)^2,
        \qquad \lambda_t = 1 - \frac{t}{T}

    Both models see what the mapping network M makes of :math:`x_t`; the second has neither temporal layers nor frame
    tokens. The mean over the batch is taken.

    Args:
        video: Prediction of the whole model, (B, C, F, h, w).
        image: Prediction of the image model for the same frames, (B, C, F, h, w).
        timesteps: t, (B,).
        num_train_timesteps: T.
        detach: Whether the image model is a target only. The paper wants M's output in the image model's domain, which
            a target cannot teach it.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: if the predictions are not of the same shape.

    Source: HARIVO, Eq. 2.
    """
    if video.shape != image.shape:
        raise ValueError(f"expected two predictions of one shape; got {tuple(video.shape)} and {tuple(image.shape)}")
    image = image.detach() if detach else image
    error = (video.float() - image.float()).square().flatten(1).mean(dim=1)
    weight = 1 - timesteps.to(device=error.device, dtype=torch.float32) / num_train_timesteps
    return (weight * error).mean()
