"""Tiny real components, built in code: the classes of the real models, with sizes that run in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel, UNet3DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

WORDS = ("a", "red", "blue", "green", "circle", "square", "moving", "left", "right", "on", "background")
SIZE = 64
TEXT_WIDTH = 32
LATENT_CHANNELS = 8
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows a dozen words and every ASCII letter."""
    letters = [chr(code) for code in range(97, 123)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [f"{word}</w>" for word in WORDS if f"{word}</w>" not in tokens]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=12)


def text_encoder(seed: int = 0) -> CLIPTextModel:
    """A CLIP text model of width 32 and two layers."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=128,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config).eval()


def vae(seed: int = 0, *, factor: int = 8, latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """An image VAE that makes one latent of `factor` x `factor` pixels."""
    torch.manual_seed(seed)
    levels = factor.bit_length()
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=SIZE,
    ).eval()


def unet_options(**changes: Any) -> dict[str, Any]:
    """The arguments of a two-level image UNet."""
    return {
        "sample_size": SIZE // 8,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,
        "cross_attention_dim": TEXT_WIDTH,
        "norm_num_groups": 8,
        "use_linear_projection": True,
        **changes,
    }


def unet(seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    """A stock image UNet."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(**unet_options(**changes)).eval()


def anchored_unet(seed: int = 0, **changes: Any) -> Any:
    """An anchored UNet in which every new part has an effect, as after training."""
    from longvid import AnchoredUNet

    torch.manual_seed(seed)
    trained = {"anchor_zero_init": False, "level_zero_init": False}
    return AnchoredUNet(**unet_options(**{**trained, **changes})).eval()


ONE_LEVEL = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}


def mask_network(seed: int = 1, **changes: Any) -> Any:
    """A mask network: an anchored UNet with one output channel, and one level only, to be quick."""
    return anchored_unet(seed, **{"out_channels": 1, **ONE_LEVEL, **changes})


def stable_diffusion(**changes: Any) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline, such as `from_base` takes."""
    parts = {
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "unet": unet(),
        "scheduler": DDIMScheduler(**BETAS, clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return StableDiffusionPipeline(**{**parts, **changes})


def art_v(**changes: Any) -> Any:
    """An ART-V pipeline with random weights; `changes` are arguments of `ARTVPipeline`."""
    from longvid import ARTVPipeline, DPMPP2SAncestralScheduler

    parts = {
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "scheduler": DPMPP2SAncestralScheduler(**BETAS),
        "unet": anchored_unet(),
        "mask_network": mask_network(),
        "call_defaults": {"num_inference_steps": 2, "num_frames": 3},
    }
    pipeline = ARTVPipeline(**{**parts, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


VIDEO_UNET = {
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


def video_unet(seed: int = 0, **changes: Any) -> Any:
    """A video UNet in which the temporal layers have an effect, as after training."""
    from longvid import VideoUNet

    torch.manual_seed(seed)
    return trained(VideoUNet(**{**VIDEO_UNET, **changes}).eval(), seed)


def image_encoder(seed: int = 0) -> CLIPVisionModelWithProjection:
    """A CLIP image model for pictures of 32 x 32 pixels."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )
    return CLIPVisionModelWithProjection(config).eval()


def trained(module: nn.Module, seed: int = 0) -> Any:
    """Give every weight that is zero throughout a value, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.3, generator=generator)
    return module


def motion_unet(seed: int = 0, base: UNet2DConditionModel | None = None, *, max_num_frames: int = 8) -> Any:
    """An image UNet with temporal layers that have an effect; its own weights are those of `base`."""
    from longvid.modules import motion_unet, new_motion_adapter

    base = base or unet()
    torch.manual_seed(seed)
    adapter = new_motion_adapter(base, num_heads=2, max_num_frames=max_num_frames)
    return motion_unet(base, trained(adapter, seed))


SMALL_UNET = {
    "sample_size": 4,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
}


def small_stable_diffusion(**changes: Any) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline for frames of 32 x 32 pixels, with latents of 4 channels."""
    parts = {"vae": vae(latent_channels=4), "unet": unet(**SMALL_UNET), "scheduler": harivo_scheduler()}
    pipeline = stable_diffusion(**{**parts, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def harivo_scheduler(**changes: Any) -> DDIMScheduler:
    """The sampler of the paper."""
    return DDIMScheduler(**{**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **changes})


def harivo(**changes: Any) -> Any:
    """A HARIVO pipeline with random weights and windows of 6 frames; `changes` are arguments of `HARIVOPipeline`."""
    from longvid import FrameTokenGenerator, HARIVOPipeline, MappingNetwork

    torch.manual_seed(0)
    mapping = MappingNetwork(4, num_heads=2, head_dim=4).eval()
    tokens = FrameTokenGenerator(TEXT_WIDTH, num_text_tokens=12, num_frames=6, tokens_per_frame=2).eval()
    parts = {
        "vae": vae(latent_channels=4),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "scheduler": harivo_scheduler(),
        "unet": motion_unet(base=unet(**SMALL_UNET)),
        "mapping_network": trained(mapping),
        "frame_tokens": tokens,
        "window_size": 6,
        "overlap": 2,
        "call_defaults": {"num_inference_steps": 2, "mg_scale": 5.0},
    }
    pipeline = HARIVOPipeline(**{**parts, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def control_network(base: UNet2DConditionModel, seed: int = 3) -> Any:
    """A ControlNet in which every part has an effect, for pictures with 8 pixels per latent."""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    network = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=(4, 4, 8, 8))
    return trained(network.eval(), seed)


def streaming_t2v(**changes: Any) -> Any:
    """A StreamingT2V pipeline with random weights; `changes` are arguments of `StreamingT2VPipeline`."""
    from longvid import AppearancePreservationModule, ConditionalAttentionModule, StreamingT2VPipeline

    unet = changes.pop("unet", None) or video_unet()
    cam = ConditionalAttentionModule.from_unet(unet, frame_encoder_widths=(4, 4, 8, 8))
    apm = AppearancePreservationModule.from_unet(
        unet, image_embed_dim=16, inner_dim=16, num_text_tokens=12, num_image_tokens=4
    )
    parts = {
        "vae": vae(latent_channels=4),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "scheduler": DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        "unet": unet,
        "cam": trained(cam, 1),
        "apm": trained(apm, 2),
        "image_encoder": image_encoder(),
        "call_defaults": {"num_inference_steps": 1},
    }
    pipeline = StreamingT2VPipeline(**{**parts, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_video_unet(seed: int = 0, **changes: Any) -> UNet3DConditionModel:
    """A two-level video UNet in the layout of ModelScope and ZeroScope, for latents of 4 channels."""
    torch.manual_seed(seed)
    options = {
        "sample_size": 4,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 4,
        "cross_attention_dim": TEXT_WIDTH,
        "norm_num_groups": 4,
        **changes,
    }
    unet = UNet3DConditionModel(**options).eval()
    for name, parameter in unet.named_parameters():
        if "temp_convs" in name and ".conv4." in name:  # zero when new: then frames would hardly see each other
            torch.nn.init.normal_(parameter, std=0.2)
    return unet


def text_to_video_parts(**changes: Any) -> dict[str, Any]:
    """The components of a stock text-to-video pipeline, with a VAE of 2 x 2 pixels per latent."""
    parts = {
        "vae": vae(factor=2, latent_channels=4),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "unet": stock_video_unet(),
        "scheduler": DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
    }
    return {**parts, **changes}


def enhancer(**changes: Any) -> Any:
    """A video enhancer with random weights; `changes` are arguments of `VideoEnhancerPipeline`."""
    from longvid import VideoEnhancerPipeline

    defaults = {"num_inference_steps": 5, "chunk_size": 6, "overlap": 2}
    pipeline = VideoEnhancerPipeline(**{**text_to_video_parts(), "call_defaults": defaults, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
