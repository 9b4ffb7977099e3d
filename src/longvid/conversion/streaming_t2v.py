"""The official checkpoint of StreamingT2V, one file, as the weights of longvid's components."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..modules.appearance import AppearancePreservationModule
from ..modules.conditional_attention import ConditionalAttentionModule
from ..modules.paper_sizes import STREAMING_T2V_APM, STREAMING_T2V_CAM, STREAMING_T2V_UNET
from ..modules.unet import VideoUNet
from .open_clip import convert_vision_weights

# In the official file `base_model` is the UNet and `unet` is CAM. The first rule that matches counts.
_RULES = tuple(
    (re.compile(pattern), part, replacement)
    for pattern, part, replacement in (
        (r"base_model\.cross_attention_merger_down_blocks\.(\d+)\.temporal_transformer\.", "cam", r"skip_mergers.\1."),
        (r"base_model\.cross_attention_merger_mid_block\.temporal_transformer\.", "cam", "mid_merger."),
        (r"base_model\.", "unet", ""),
        (r"unet\.controlnet_cond_embedding\.", "cam", "frame_encoder."),
        (r"unet\.", "cam", "branch."),
        (r"resampler\.context_embedding\.", "apm", "image_tokens."),
        (r"image_encoder\.model\.visual\.", "image_encoder", ""),
        (r"text_encoder\.text_model\.", "text_encoder", ""),  # transformers 5 names them without the prefix
        (r"vae\.", "vae", ""),
    )
)
_MIXER = re.compile(r"base_model\.(?P<block>.+\.attn2)\.(?P<name>alpha|conv\.\w+|conv_ln\.\w+)")
_UNUSED = re.compile(  # the text half of OpenCLIP, and a buffer that older versions of transformers kept
    r"image_encoder\.model\.(token_embedding\.weight|positional_embedding|text_projection|logit_scale|ln_final\.\w+)"
    r"|text_encoder\.text_model\.embeddings\.position_ids"
)
_STAGES = ("down_blocks", "mid_block", "up_blocks")  # the order in which a VideoUNet numbers its text layers


def split_checkpoint(
    state_dict: Mapping[str, Tensor], networks: Mapping[str, nn.Module] | None = None
) -> dict[str, dict[str, Tensor]]:
    """Split the official checkpoint into state dicts that load into longvid's components with `strict=True`.

    Args:
        state_dict: `torch.load(path, weights_only=True)["state_dict"]`, official names.
        networks: The component of every part; None means the released model, `released_networks()`.

    Returns:
        Weights of "unet" (`VideoUNet`), "cam" (`ConditionalAttentionModule`), "apm" (`AppearancePreservationModule`),
        "image_encoder" (`CLIPVisionModelWithProjection`), "text_encoder" (`CLIPTextModel`) and "vae"
        (`AutoencoderKL`). Tensors are those given, not copies, but for the image encoder's attention.

    Raises:
        ValueError: if weights are missing, unexpected or of a wrong shape; the message lists them by prefix.
    """
    parts, unknown = _rename(state_dict)
    networks = released_networks() if networks is None else networks
    missing, unexpected, misshapen = [], list(unknown), []
    for part in networks.keys() | parts.keys():
        given = parts.get(part, {})
        wanted = networks[part].state_dict() if part in networks else {}
        missing += [f"{part}.{key}" for key in wanted.keys() - given.keys()]
        unexpected += [f"{part}.{key}" for key in given.keys() - wanted.keys()]
        misshapen += [
            f"{part}.{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in given.keys() & wanted.keys()
            if given[key].shape != wanted[key].shape
        ]
    faults = {"missing": missing, "unexpected": unexpected, "of a wrong shape": misshapen}
    if any(faults.values()):
        lines = [f"{fault}: {line}" for fault, keys in faults.items() for line in _grouped(keys)]
        raise ValueError("the checkpoint does not fit the model; weights are\n" + "\n".join(lines))
    return parts


def rename_checkpoint(state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Give official weights longvid's names, part by part, whatever their sizes and however many there are.

    Raises:
        ValueError: if a name is none that the official model has.
    """
    parts, unknown = _rename(state_dict)
    if unknown:
        raise ValueError("not weights of StreamingT2V:\n" + "\n".join(_grouped(unknown)))
    return parts


def released_networks() -> dict[str, nn.Module]:
    """Build the components of the released model on the meta device: names and shapes without weights."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        image_size=224,
        projection_dim=1024,
        hidden_act="gelu",
    )
    text = CLIPTextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
        projection_dim=1024,
    )
    with torch.device("meta"):
        return {
            "unet": VideoUNet(**STREAMING_T2V_UNET),
            "cam": ConditionalAttentionModule(**STREAMING_T2V_CAM),
            "apm": AppearancePreservationModule(**STREAMING_T2V_APM),
            "image_encoder": CLIPVisionModelWithProjection(vision),
            "text_encoder": CLIPTextModel(text),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),  # type: ignore[arg-type] (diffusers annotates tuples of one entry)
                down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
                up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
                layers_per_block=2,
                sample_size=512,
            ),
        }


def _rename(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Weights by part under longvid's names, and the official names that no rule knows."""
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    blocks = sorted({found["block"] for found in map(_MIXER.fullmatch, state_dict) if found}, key=_position)
    for key, value in state_dict.items():
        if mixer := _MIXER.fullmatch(key):
            name = mixer["name"].replace("conv_ln", "norm")
            parts.setdefault("apm", {})[f"mixers.{blocks.index(mixer['block'])}.{name}"] = value
        elif _UNUSED.fullmatch(key):
            continue
        elif target := _target(key):
            part, name = target
            parts.setdefault(part, {})[name] = value
        else:
            unknown.append(key)
    if "image_encoder" in parts:
        parts["image_encoder"] = convert_vision_weights(parts["image_encoder"])
    return parts, unknown


def _target(key: str) -> tuple[str, str] | None:
    for pattern, part, replacement in _RULES:
        if found := pattern.match(key):
            return part, found.expand(replacement) + key[found.end() :]
    return None


def _position(block: str) -> tuple[int, ...]:
    """Place of an attention in the UNet, from its name: stage first, then every number in the name."""
    stage = block.partition(".")[0]
    return (_STAGES.index(stage) if stage in _STAGES else len(_STAGES), *map(int, re.findall(r"\d+", block)))


def _grouped(keys: Iterable[str], shown: int = 3) -> Iterator[str]:
    """One line per prefix of two names: how many there are and the first few."""
    groups: dict[str, list[str]] = {}
    for key in sorted(keys):
        groups.setdefault(".".join(key.split(".")[:2]), []).append(key)
    for prefix, members in groups.items():
        more = ", ..." if len(members) > shown else ""
        yield f"{prefix} ({len(members)}): {', '.join(members[:shown])}{more}"
