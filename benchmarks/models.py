"""Pipelines to be measured: of the papers' sizes with random weights, the bundled tiny ones, and toys for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

import longvid
from longvid import modules

PROMPT = "a red circle moving right on a blue checkered background"
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_VAE = {
    "paper": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    "toy": {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 16},
}
_TEXT = {  # text encoders, by the width of the text
    "paper": {
        768: {"intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        1024: {"intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"},
    },
    "toy": {32: {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}},
}
_IMAGE_ENCODER = {
    "paper": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
              "image_size": 224, "patch_size": 14, "projection_dim": 1024},
    "toy": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 8, "projection_dim": 16},
}  # fmt: skip
_TOY_UNET = {
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "norm_num_groups": 4,
}
_BLOCKS = {
    kind: {
        "down_block_types": (f"CrossAttnDownBlock{kind}", f"DownBlock{kind}"),
        "up_block_types": (f"UpBlock{kind}", f"CrossAttnUpBlock{kind}"),
    }
    for kind in ("2D", "3D")
}


def build(method: str, scale: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Give the pipeline of a method, ready to run.

    Args:
        method: "art-v", "harivo", "streaming-t2v" or "enhancer".
        scale: "paper", "tiny" (the bundled model) or "toy".
    """
    torch.manual_seed(0)
    with made_on(device, dtype):
        pipe = _bundled(method) if scale == "tiny" else _BUILDERS[method](scale)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.to(part, device, dtype).eval().requires_grad_(False)  # diffusers' own `to` warns of a cast
    pipe.set_progress_bar_config(disable=True)
    return pipe


def window_frames(pipe: Any) -> tuple[int, int]:
    """Frames of the first window, and new frames of every further one."""
    if isinstance(pipe, longvid.ARTVPipeline):
        return 1, 1
    if isinstance(pipe, longvid.HARIVOPipeline):
        size, overlap = pipe.config["window_size"], pipe.config["overlap"]
    elif isinstance(pipe, longvid.StreamingT2VPipeline):
        size, overlap = pipe.config["chunk_size"], pipe.config["overlap"]
    else:
        options = {**pipe.method_defaults, **(pipe.config["call_defaults"] or {})}
        size, overlap = options["chunk_size"], options["overlap"]
    return size, size - overlap


def frames_for(pipe: Any, num_windows: int) -> int:
    """Frames of a video of so many windows."""
    first, further = window_frames(pipe)
    return first + further * (num_windows - 1)


def start(pipe: Any, num_frames: int, size: tuple[int, int], steps: int, *, seed: int = 0, **options: Any) -> Iterator:
    """Begin a stream; what comes in for the enhancer is drawn frame by frame, so it takes no memory.

    The enhancer makes the steps at low noise only, 0.6 of all; of a single step there would be none, so it gets two.
    """
    is_enhancer = isinstance(pipe, longvid.VideoEnhancerPipeline)
    options |= {"height": size[0], "width": size[1], "num_inference_steps": max(steps, 2) if is_enhancer else steps}
    options["generator"] = torch.Generator().manual_seed(seed)
    if is_enhancer:
        return pipe.stream(PROMPT, noise_video(num_frames, size, seed), **options)
    return pipe.stream(PROMPT, num_frames=num_frames, **options)


def noise_video(num_frames: int, size: tuple[int, int], seed: int = 0) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) of random pixels, uint8."""
    random = np.random.default_rng(seed)
    for _ in range(num_frames):
        yield random.integers(0, 256, (*size, 3), dtype=np.uint8)


def default_size(pipe: Any) -> tuple[int, int]:
    """Height and width that a pipeline's networks are made for."""
    size = pipe.unet.config["sample_size"] or 64
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor


def _art_v(scale: str) -> Any:
    toy = {} if scale == "paper" else {**_TOY_UNET, **_BLOCKS["2D"], "attention_head_dim": 2}
    return longvid.ARTVPipeline(
        **_common(scale, 1024),
        scheduler=longvid.DPMPP2SAncestralScheduler(**_BETAS),
        unet=longvid.AnchoredUNet(**{**modules.PAPER_UNET, **toy}),
        mask_network=longvid.AnchoredUNet(**{**modules.PAPER_MASK_NETWORK, **toy}),
    )


def _harivo(scale: str) -> Any:
    paper = scale == "paper"
    toy = {} if paper else {**_TOY_UNET, **_BLOCKS["2D"], "attention_head_dim": 2}
    size, width = (24, 768) if paper else (6, 32)
    adapter = {} if paper else {"block_out_channels": (8, 16), "motion_layers_per_block": 1,
                                "motion_num_attention_heads": 2, "motion_norm_num_groups": 4}  # fmt: skip
    mapping = {} if paper else {"num_heads": 2, "head_dim": 4}
    tokens = {} if paper else {"text_dim": 32, "num_text_tokens": 12, "num_frames": size}
    unet = UNet2DConditionModel(**{**modules.HARIVO_BASE_UNET, **toy})
    return longvid.HARIVOPipeline(
        **_common(scale, width),
        scheduler=_ddim(),
        unet=modules.motion_unet(unet, MotionAdapter(**{**modules.HARIVO_MOTION_ADAPTER, **adapter})),
        mapping_network=modules.MappingNetwork(**{**modules.HARIVO_MAPPING_NETWORK, **mapping}),
        frame_tokens=modules.FrameTokenGenerator(**{**modules.HARIVO_FRAME_TOKENS, **tokens}),
        window_size=size,
        overlap=size // 3,
    )


def _streaming_t2v(scale: str) -> Any:
    toy = {} if scale == "paper" else {**_TOY_UNET, **_BLOCKS["3D"], "attention_head_dim": 4}
    small = {} if scale == "paper" else {"frame_encoder_widths": (4, 8), "merger_head_dim": 4}
    unet = modules.VideoUNet(**{**modules.STREAMING_T2V_UNET, **toy})
    apm = {} if scale == "paper" else {"num_layers": unet.num_text_layers, "cross_attention_dim": 32,
                                       "image_embed_dim": 16, "inner_dim": 16, "num_text_tokens": 12}  # fmt: skip
    return longvid.StreamingT2VPipeline(
        **_common(scale, 1024),
        scheduler=_ddim(),
        unet=unet,
        cam=modules.ConditionalAttentionModule(**{**modules.STREAMING_T2V_CAM, **toy, **small}),
        apm=modules.AppearancePreservationModule(**{**modules.STREAMING_T2V_APM, **apm}),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**_IMAGE_ENCODER[scale])),
    )


def _enhancer(scale: str) -> Any:
    toy = {} if scale == "paper" else {**_TOY_UNET, **_BLOCKS["3D"], "attention_head_dim": 4}
    return longvid.VideoEnhancerPipeline(
        **_common(scale, 1024),
        unet=UNet3DConditionModel(**{**modules.STREAMING_T2V_UNET, **toy}),
        scheduler=_ddim(),
        call_defaults=None if scale == "paper" else {"chunk_size": 6, "overlap": 2},
    )


def _bundled(method: str) -> Any:
    kind = longvid.VideoEnhancerPipeline if method == "enhancer" else longvid.LongVideoPipeline
    return kind.from_pretrained(f"longvid/{method}-tiny")


def _common(scale: str, text_width: int) -> dict[str, Any]:
    """VAE, text encoder and tokenizer."""
    length = 77 if scale == "paper" else 12
    (width, shape), *_ = [(w, s) for w, s in _TEXT[scale].items() if w == text_width or scale == "toy"]
    text = CLIPTextConfig(hidden_size=width, max_position_embeddings=length, **shape)
    levels = len(_VAE[scale]["block_out_channels"])
    vae = AutoencoderKL(
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **_VAE[scale],
    )
    return {"vae": vae, "text_encoder": CLIPTextModel(text), "tokenizer": _tokenizer(length)}


def _tokenizer(length: int) -> CLIPTokenizer:
    """A CLIP tokenizer that spells; the ids of begin and end are those that `CLIPTextConfig` expects."""
    letters = [chr(code) for code in range(97, 123)]
    vocab = {token: index for index, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocab |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def _ddim() -> DDIMScheduler:
    return DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


@contextmanager
def made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Let new weights be made on a device and in a dtype at once."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


_BUILDERS = {"art-v": _art_v, "harivo": _harivo, "streaming-t2v": _streaming_t2v, "enhancer": _enhancer}
