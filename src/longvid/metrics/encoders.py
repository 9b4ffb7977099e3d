"""CLIP models that put pictures and texts into one space: transformers folders, OpenCLIP, and the tiny one that ships."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.bundled import bundled_models
from longvid.metrics.base import MissingWeights
from longvid.metrics.weights import need_package, usable_device, without_bars

TINY = "longvid/base-tiny"
OPEN_CLIP = "open_clip:"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EXPECTED = f"{TINY!r}, a folder of transformers' CLIPModel with its tokenizer, or 'open_clip:MODEL:WEIGHTS'"


class ImageTextEncoder(Protocol):
    """A model with one space for pictures and texts.

    Attributes:
        name: What it is, for the results.
    """

    name: str

    def encode_images(self, frames: Tensor) -> Tensor:
        """Features ``(F, D)`` of frames ``(F, 3, H, W)`` in [0, 1], of any length."""
        ...

    def encode_text(self, text: str) -> Tensor:
        """Features ``(D,)`` of a text, of any length."""
        ...

    def excess_tokens(self, text: str) -> int:
        """How many tokens at the end of a text the model does not read; 0 if it reads it all."""
        ...


@lru_cache(maxsize=1)
def load_encoder(clip: str = TINY, device: str | None = None) -> ImageTextEncoder:
    """The encoder that `clip` names; the last one stays loaded, so that several metrics and videos share it.

    Args:
        clip: ``longvid/base-tiny``, the tiny CLIP that knows the built-in world; a folder with a CLIPModel of
            transformers and its tokenizer; or ``open_clip:MODEL:WEIGHTS``, such as ``open_clip:ViT-L-14:openai`` (a tag
            that OpenCLIP knows and downloads) or ``open_clip:ViT-L-14:/path/to/weights.safetensors``.
        device: Name of the device; CUDA where there is one.

    Raises:
        MissingWeights: if there is no such folder, file or package.
    """
    if clip.startswith(OPEN_CLIP):
        model, _, weights = clip.removeprefix(OPEN_CLIP).partition(":")
        return OpenCLIP(model, weights, device=device)
    if clip in bundled_models():
        folder = bundled_models()[clip]
        if not (folder / "clip").is_dir():
            raise MissingWeights(f"the bundled model {clip!r} holds no CLIP; expected {EXPECTED}")
        return TransformersCLIP(folder / "clip", tokenizer=folder / "tokenizer", name=f"{clip}/clip", device=device)
    if not Path(clip).expanduser().is_dir():
        raise MissingWeights(f"there is no CLIP at clip={clip!r}; expected {EXPECTED}")
    return TransformersCLIP(Path(clip).expanduser(), device=device)


class TransformersCLIP:
    """A folder with transformers' `CLIPModel`, its tokenizer in the same folder unless told.

    Args:
        folder: As `save_pretrained` writes it.
        tokenizer: Folder of the tokenizer.
        name: For the results; default: the folder's.
        device: Name of the device.

    Raises:
        MissingWeights: if the folder holds no such model or tokenizer.
    """

    def __init__(
        self, folder: Path, *, tokenizer: Path | None = None, name: str | None = None, device: str | None = None
    ) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.name, self.device = name or str(folder), usable_device(device)
        try:
            with without_bars():
                model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32)
            self.model = model.eval().to(self.device)
            self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer or folder)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise MissingWeights(f"{folder} is not a folder of transformers' CLIPModel: {reason}") from error
        self.image_size: int = self.model.config.vision_config.image_size
        self.max_tokens = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)

    @torch.no_grad()
    def encode_images(self, frames: Tensor) -> Tensor:
        """Features ``(F, D)`` of frames ``(F, 3, H, W)`` in [0, 1]."""
        pixels = fit_images(frames.to(self.device), self.image_size)
        return self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)

    @torch.no_grad()
    def encode_text(self, text: str) -> Tensor:
        """Features ``(D,)`` of a text, cut to the model's length."""
        words = self.tokenizer(
            [text], padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        ids = cast(Tensor, words.input_ids).to(self.device)
        return self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output)[0]

    def excess_tokens(self, text: str) -> int:
        """How many tokens are cut off."""
        return max(0, len(self.tokenizer(text).input_ids) - self.max_tokens)


class OpenCLIP:
    """A model of the package open_clip.

    Args:
        model: Such as ``ViT-L-14`` or ``ViT-H-14``.
        weights: A tag such as ``openai``, which open_clip downloads once, or a file (safetensors, or a checkpoint that
            holds nothing but weights). A file of OpenAI's weights needs the model's name with ``-quickgelu``.
        device: Name of the device.

    Raises:
        MissingWeights: if the package, the model or the weights are not there.
    """

    def __init__(self, model: str, weights: str, *, device: str | None = None) -> None:
        self.name, self.device = f"{OPEN_CLIP}{model}:{weights}", usable_device(device)
        package = need_package("open_clip", "a CLIP of 'open_clip:MODEL:WEIGHTS'")
        if model not in package.list_models():
            raise MissingWeights(f"open_clip knows no model {model!r}; see open_clip.list_models()")
        tags = package.list_pretrained_tags_by_model(model)
        if weights not in tags and not Path(weights).expanduser().is_file():
            raise MissingWeights(
                f"{self.name}: there is no file {weights!r}, and open_clip's own are {', '.join(tags)}"
            )
        source = weights if weights in tags else str(Path(weights).expanduser())
        trained = package.get_pretrained_cfg(model, weights) if weights in tags else {}
        options = {"weights_only": True, "force_quick_gelu": bool(trained.get("quick_gelu"))}
        try:
            self.model: Any = package.create_model(model, pretrained=source, **options).eval().to(self.device)
        except Exception as error:  # the hub client and torch raise many kinds
            raise MissingWeights(f"{self.name} cannot be loaded: {str(error).splitlines()[0]}") from error
        self.tokenizer: Any = package.get_tokenizer(model)
        preprocess = self.model.visual.preprocess_cfg
        self.mean, self.std = preprocess["mean"], preprocess["std"]
        size = preprocess["size"]
        self.image_size: int = size if isinstance(size, int) else size[0]

    @torch.no_grad()
    def encode_images(self, frames: Tensor) -> Tensor:
        """Features ``(F, D)`` of frames ``(F, 3, H, W)`` in [0, 1]."""
        return self.model.encode_image(fit_images(frames.to(self.device), self.image_size, self.mean, self.std))

    @torch.no_grad()
    def encode_text(self, text: str) -> Tensor:
        """Features ``(D,)`` of a text, cut to the model's length."""
        return self.model.encode_text(self.tokenizer([text]).to(self.device))[0]

    def excess_tokens(self, text: str) -> int:
        """How many tokens are cut off; 0 where the tokenizer does not tell."""
        if not hasattr(self.tokenizer, "encode"):
            return 0
        return max(0, len(self.tokenizer.encode(text)) + 2 - self.tokenizer.context_length)


def fit_images(frames: Tensor, size: int, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """Frames in [0, 1] as CLIP's image towers take them: shorter side to `size` (bicubic), the middle, normalised.

    Shapes:
        ``(F, 3, H, W)`` -> ``(F, 3, size, size)``.
    """
    height, width = frames.shape[-2:]
    if min(height, width) != size:
        scaled = [max(size, round(side * size / min(height, width))) for side in (height, width)]
        frames = F.interpolate(frames, size=scaled, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = ((side - size) // 2 for side in frames.shape[-2:])
    frames = frames[..., top : top + size, left : left + size]
    middle, spread = (torch.tensor(values, device=frames.device)[:, None, None] for values in (mean, std))
    return (frames - middle) / spread
