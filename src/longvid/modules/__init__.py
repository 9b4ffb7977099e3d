"""What is learned: networks that extend diffusers' own and, freshly built, leave them as they were."""

from .anchored_unet import AnchoredUNet
from .appearance import AppearancePreservationModule
from .conditional_attention import ConditionalAttentionModule, FrameConditioning
from .conditioning_ablations import AddedConditioning, ConcatenatedConditioning
from .counting import count_multiply_adds, count_parameters
from .image_preprocessing import clip_pixels
from .masked_diffusion import MaskedDiffusionModel, MaskedDiffusionOutput, static_noise
from .paper_sizes import (
    PAPER_MASK_NETWORK,
    PAPER_UNET,
    STREAMING_T2V_APM,
    STREAMING_T2V_CAM,
    STREAMING_T2V_UNET,
)
from .reference_conditions import EncodedConditions, ReferenceConditions
from .unet import VideoUNet

__all__ = [
    "PAPER_MASK_NETWORK",
    "PAPER_UNET",
    "STREAMING_T2V_APM",
    "STREAMING_T2V_CAM",
    "STREAMING_T2V_UNET",
    "AddedConditioning",
    "AnchoredUNet",
    "AppearancePreservationModule",
    "ConcatenatedConditioning",
    "ConditionalAttentionModule",
    "EncodedConditions",
    "FrameConditioning",
    "MaskedDiffusionModel",
    "MaskedDiffusionOutput",
    "ReferenceConditions",
    "VideoUNet",
    "clip_pixels",
    "count_multiply_adds",
    "count_parameters",
    "static_noise",
]
