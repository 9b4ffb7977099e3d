"""The smallest pipelines with real parts: what loading, saving and hub tests save and load."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from longvid import AnchoredUNet, DPMPP2SAncestralScheduler, LoadablePipeline

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class ToyMixer(ModelMixin, ConfigMixin):
    """A component from outside longvid, as a researcher would write one."""

    @register_to_config
    def __init__(self, width: int = 4):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class WiderToyMixer(ToyMixer):
    """A subclass of an annotated type."""


class ToyBase(LoadablePipeline):
    """A base class: it names no components."""


class ToyPipeline(ToyBase):
    _optional_components = ["mixer"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        unet: AnchoredUNet,
        mixer: ToyMixer | None = None,
        window_size: int = 4,
        call_defaults: dict | None = None,
    ):
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler, unet=unet, mixer=mixer
        )
        self.register_to_config(window_size=window_size, call_defaults=call_defaults)


class SmallToyPipeline(ToyBase):
    """Shares two components with the other toy, and a constant of its own."""

    def __init__(self, vae: AutoencoderKL, scheduler: SchedulerMixin, overlap: int = 1):
        super().__init__()
        self.register_modules(vae=vae, scheduler=scheduler)
        self.register_to_config(overlap=overlap)


def tiny_components(seed: int = 0) -> dict[str, object]:
    """The five components that every method has, random and of a few thousand weights each."""
    torch.manual_seed(seed)
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return {
        "vae": AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4, sample_size=8),
        "text_encoder": CLIPTextModel(text).eval(),
        "tokenizer": CLIPTokenizer(
            vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=16
        ),
        "scheduler": DPMPP2SAncestralScheduler(),
        "unet": tiny_unet(),
    }


def tiny_unet(out_channels: int = 4) -> AnchoredUNet:
    return AnchoredUNet(
        in_channels=4,
        out_channels=out_channels,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        num_levels=50,
    ).eval()
