"""What is learned: networks that extend diffusers' own and, freshly built, leave them as they were."""

from .anchored_unet import AnchoredUNet
from .conditional_attention import ConditionalAttentionModule, FrameConditioning
from .counting import count_multiply_adds, count_parameters
from .masked_diffusion import MaskedDiffusionModel, MaskedDiffusionOutput, static_noise
from .paper_sizes import (
    PAPER_MASK_NETWORK,
    PAPER_UNET,
)
from .reference_conditions import EncodedConditions, ReferenceConditions
from .unet import VideoUNet

__all__ = [
    "PAPER_MASK_NETWORK",
    "PAPER_UNET",
    "AnchoredUNet",
    "ConditionalAttentionModule",
    "EncodedConditions",
    "FrameConditioning",
    "MaskedDiffusionModel",
    "MaskedDiffusionOutput",
    "ReferenceConditions",
    "VideoUNet",
    "count_multiply_adds",
    "count_parameters",
    "static_noise",
]
