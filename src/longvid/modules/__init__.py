"""What is learned: networks that extend diffusers' own and, freshly built, leave them as they were."""

from .anchored_unet import AnchoredUNet
from .appearance import AppearancePreservationModule
from .conditional_attention import ConditionalAttentionModule, FrameConditioning
from .conditioning_ablations import AddedConditioning, ConcatenatedConditioning
from .counting import count_multiply_adds, count_parameters
from .frame_tokens import FrameTokenGenerator, fit_tokens, frame_context
from .image_preprocessing import clip_pixels
from .inflation import inflated
from .mapping_network import MappingNetwork
from .masked_diffusion import MaskedDiffusionModel, MaskedDiffusionOutput, static_noise
from .motion_unet import image_view, motion_adapter_of, motion_unet, new_motion_adapter, zero_motion_outputs
from .paper_sizes import (
    HARIVO_BASE_UNET,
    HARIVO_FRAME_TOKENS,
    HARIVO_MAPPING_NETWORK,
    HARIVO_MOTION_ADAPTER,
    PAPER_MASK_NETWORK,
    PAPER_UNET,
    STREAMING_T2V_APM,
    STREAMING_T2V_CAM,
    STREAMING_T2V_UNET,
)
from .reference_conditions import EncodedConditions, ReferenceConditions
from .unet import VideoUNet

__all__ = [
    "HARIVO_BASE_UNET",
    "HARIVO_FRAME_TOKENS",
    "HARIVO_MAPPING_NETWORK",
    "HARIVO_MOTION_ADAPTER",
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
    "FrameTokenGenerator",
    "MappingNetwork",
    "MaskedDiffusionModel",
    "MaskedDiffusionOutput",
    "ReferenceConditions",
    "VideoUNet",
    "clip_pixels",
    "count_multiply_adds",
    "count_parameters",
    "fit_tokens",
    "frame_context",
    "image_view",
    "motion_adapter_of",
    "motion_unet",
    "new_motion_adapter",
    "inflated",
    "static_noise",
    "zero_motion_outputs",
]
