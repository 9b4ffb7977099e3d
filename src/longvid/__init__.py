"""Long videos from text: autoregressive video diffusion as diffusers pipelines, with tiny trained models included.

Names are resolved on first use, so `import longvid` loads neither torch nor diffusers. `ModelMixin` and
`SchedulerMixin` are diffusers' own: diffusers looks them up here when it loads a component that longvid provides.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from diffusers import ModelMixin as ModelMixin
    from diffusers import SchedulerMixin as SchedulerMixin

    from .bundled import bundled_models as bundled_models
    from .modules.anchored_unet import AnchoredUNet as AnchoredUNet
    from .modules.appearance import AppearancePreservationModule as AppearancePreservationModule
    from .modules.conditional_attention import ConditionalAttentionModule as ConditionalAttentionModule
    from .modules.conditioning_ablations import AddedConditioning as AddedConditioning
    from .modules.conditioning_ablations import ConcatenatedConditioning as ConcatenatedConditioning
    from .modules.frame_tokens import FrameTokenGenerator as FrameTokenGenerator
    from .modules.mapping_network import MappingNetwork as MappingNetwork
    from .modules.masked_diffusion import MaskedDiffusionModel as MaskedDiffusionModel
    from .modules.unet import VideoUNet as VideoUNet
    from .pipelines.art_v import ARTVPipeline as ARTVPipeline
    from .pipelines.base import LongVideoPipeline as LongVideoPipeline
    from .pipelines.base import LongVideoPipelineOutput as LongVideoPipelineOutput
    from .pipelines.distribution import Distribution as Distribution
    from .pipelines.enhance import VideoEnhancerPipeline as VideoEnhancerPipeline
    from .pipelines.harivo import HARIVOPipeline as HARIVOPipeline
    from .pipelines.loading import LoadablePipeline as LoadablePipeline
    from .pipelines.optimization import Optimization as Optimization
    from .pipelines.streaming_t2v import StreamingT2VPipeline as StreamingT2VPipeline
    from .runs.run import Run as Run
    from .samplers.dpmpp_2s_ancestral import DPMPP2SAncestralScheduler as DPMPP2SAncestralScheduler
    from .samplers.guidance import guided as guided
    from .samplers.guidance_schedule import GuidanceSchedule as GuidanceSchedule
    from .samplers.mitigating_gradient import mitigated as mitigated
    from .samplers.mitigating_gradient import mitigating_gradient as mitigating_gradient
    from .samplers.randomized_blending import blended as blended
    from .video.codec import decode_video as decode_video
    from .video.codec import encode_video as encode_video
    from .video.io import VideoWriter as VideoWriter
    from .video.io import read_video as read_video
    from .video.sheet import contact_sheet as contact_sheet
    from .video.state import StreamState as StreamState
    from .video.state import VideoChunk as VideoChunk
    from .video.windows import Window as Window
    from .video.windows import fit_windows as fit_windows
    from .video.windows import plan_windows as plan_windows

_HOMES = {
    "ARTVPipeline": ".pipelines.art_v",
    "AddedConditioning": ".modules.conditioning_ablations",
    "AnchoredUNet": ".modules.anchored_unet",
    "AppearancePreservationModule": ".modules.appearance",
    "ConcatenatedConditioning": ".modules.conditioning_ablations",
    "ConditionalAttentionModule": ".modules.conditional_attention",
    "DPMPP2SAncestralScheduler": ".samplers.dpmpp_2s_ancestral",
    "Distribution": ".pipelines.distribution",
    "FrameTokenGenerator": ".modules.frame_tokens",
    "GuidanceSchedule": ".samplers.guidance_schedule",
    "HARIVOPipeline": ".pipelines.harivo",
    "LoadablePipeline": ".pipelines.loading",
    "LongVideoPipeline": ".pipelines.base",
    "LongVideoPipelineOutput": ".pipelines.base",
    "MappingNetwork": ".modules.mapping_network",
    "MaskedDiffusionModel": ".modules.masked_diffusion",
    "ModelMixin": "diffusers",
    "Optimization": ".pipelines.optimization",
    "Run": ".runs.run",
    "SchedulerMixin": "diffusers",
    "StreamState": ".video.state",
    "StreamingT2VPipeline": ".pipelines.streaming_t2v",
    "VideoChunk": ".video.state",
    "VideoUNet": ".modules.unet",
    "VideoEnhancerPipeline": ".pipelines.enhance",
    "VideoWriter": ".video.io",
    "Window": ".video.windows",
    "blended": ".samplers.randomized_blending",
    "bundled_models": ".bundled",
    "contact_sheet": ".video.sheet",
    "decode_video": ".video.codec",
    "encode_video": ".video.codec",
    "fit_windows": ".video.windows",
    "guided": ".samplers.guidance",
    "mitigated": ".samplers.mitigating_gradient",
    "mitigating_gradient": ".samplers.mitigating_gradient",
    "plan_windows": ".video.windows",
    "read_video": ".video.io",
}
_ROOMS = (
    "bundled",
    "cli",
    "conversion",
    "metrics",
    "modules",
    "pipelines",
    "reproduce",
    "runs",
    "samplers",
    "sprites",
    "training",
    "video",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS} - {"TYPE_CHECKING", "Any", "annotations", "import_module"})
