"""`longvid models`: every bundled and every paper-size model, with the number of parameters of each component."""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from longvid.cli.parser import Parser, nearest

EXAMPLES = """\
examples:
  longvid models
  longvid models longvid/art-v-tiny      one model: its recommended settings and the words it knows
  longvid models --json
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid models`."""
    parser = Parser(prog=prog, description=f"longvid models: {summary}.", epilog=EXAMPLES)
    parser.add_argument("name", metavar="MODEL", nargs="?", help="show this bundled model only, in detail")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the list."""
    parser.check_unknown(rest)
    if rest:
        parser.error(f"expected one model at most; got {rest[0]!r} as well")
    if arguments.name is not None:
        return _show_one(arguments.name, as_json=arguments.json)
    bundled, paper = bundled_models(), paper_size_models()
    if arguments.json:
        print(json.dumps({"bundled": bundled, "paper_size": paper}, indent=2))
        return 0
    print("Bundled models: trained by us, ready to use\n")
    print("\n".join(_table(bundled)) if bundled else "  none\n")
    print("Paper-size models: the architecture is included, the weights are not\n")
    print("\n".join(_table(paper)))
    return 0


def bundled_models() -> list[dict[str, Any]]:
    """The models that ship with longvid, read from their folders without loading a weight."""
    from longvid import bundled

    return [_describe(name, folder) for name, folder in bundled.bundled_models().items()]


def paper_size_models() -> list[dict[str, Any]]:
    """The models of the papers at full size, built on the meta device."""
    import torch

    models = []
    with torch.device("meta"):
        for name, title, build in PAPER_SIZES:
            components = {
                part: {"class": type(module).__name__, "parameters": sum(p.numel() for p in module.parameters())}
                for part, module in build()
            }
            total = sum(component["parameters"] for component in components.values())
            models.append({"name": name, "title": title, "components": components, "parameters": total})
    return models


def count_stored(folder: Path) -> int:
    """Number of values in the safetensors files of a component's folder, from their headers; variants count once."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if len(path.name.split(".")) == 2] or files
    return sum(prod(shape) for path in plain for shape in _stored_shapes(path))


def known_words(folder: Path) -> list[str]:
    """The words that are one token for the tokenizer in `folder`, that is, all the words its model can know."""
    try:
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    words = (token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>"))
    return sorted(word for word in words if len(word) > 1 and word.isalpha() or word == "a")


def _art_v() -> Iterator[tuple[str, Any]]:
    from longvid.modules.anchored_unet import AnchoredUNet
    from longvid.modules.paper_sizes import PAPER_MASK_NETWORK, PAPER_UNET

    yield "unet", AnchoredUNet(**PAPER_UNET)
    yield "mask_network", AnchoredUNet(**PAPER_MASK_NETWORK)
    yield "vae", _stable_diffusion_vae()
    yield "text_encoder", _stable_diffusion_2_text_encoder()


def _harivo() -> Iterator[tuple[str, Any]]:
    from diffusers import MotionAdapter, UNet2DConditionModel

    from longvid.modules import FrameTokenGenerator, MappingNetwork, motion_unet, paper_sizes

    adapter = MotionAdapter(**paper_sizes.HARIVO_MOTION_ADAPTER)
    yield "unet", motion_unet(UNet2DConditionModel(**paper_sizes.HARIVO_BASE_UNET), adapter)
    yield "mapping_network", MappingNetwork(**paper_sizes.HARIVO_MAPPING_NETWORK)
    yield "frame_tokens", FrameTokenGenerator(**paper_sizes.HARIVO_FRAME_TOKENS)
    yield "vae", _stable_diffusion_vae()
    yield "text_encoder", _stable_diffusion_1_text_encoder()


def _stable_diffusion_vae() -> Any:
    from diffusers import AutoencoderKL

    blocks: dict[str, Any] = {  # diffusers annotates tuples of one entry
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(**blocks, layers_per_block=2, latent_channels=4, sample_size=768)


def _stable_diffusion_2_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        projection_dim=512, hidden_act="gelu", max_position_embeddings=77,
    ))  # fmt: skip


def _stable_diffusion_1_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768, max_position_embeddings=77,
    ))  # fmt: skip


def _streaming_t2v() -> Iterator[tuple[str, Any]]:
    from longvid.conversion import released_networks

    yield from released_networks().items()


PAPER_SIZES = [
    ("art-v", "ART-V (arXiv:2311.18834), on Stable Diffusion 2.1", _art_v),
    ("harivo", "HARIVO (arXiv:2410.07763), on Stable Diffusion 1.5", _harivo),
    ("streaming-t2v", "StreamingT2V (arXiv:2403.14773), on ModelScope's text-to-video model", _streaming_t2v),
]
"""Name, title and a function that gives the components, of every model that can be built at the paper's size."""


def _describe(name: str, folder: Path) -> dict[str, Any]:
    from longvid import bundled

    index = bundled.read_json(folder / bundled.INDEX)
    components = {}
    extended = bundled.extended_components(folder)
    for part, place in bundled.component_folders(folder).items():
        shared = place.parent != folder.resolve() and place.parent != folder
        stored = [place, extended[part]] if part in extended else [place]
        components[part] = {
            "class": index[part][1],
            "parameters": sum(map(count_stored, stored)),
            "shared_with": f"{bundled.PREFIX}{place.parent.name}" if shared else None,
        }
    return {
        "name": name,
        "title": index.get("_class_name"),
        "folder": str(folder),
        "components": components,
        "parameters": sum(component["parameters"] for component in components.values()),
        "call_defaults": index.get("call_defaults") or {},
    }


def _stored_shapes(path: Path) -> Iterator[list[int]]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (struct.error, ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: it is not a safetensors file") from error
    yield from (entry["shape"] for key, entry in header.items() if key != "__metadata__")


def _table(models: Sequence[dict[str, Any]]) -> Iterator[str]:
    for model in models:
        yield f"  {model['name']:<24} {model['title']}"
        for part, component in model["components"].items():
            if component["parameters"]:
                shared = f"   shared with {component['shared_with']}" if component.get("shared_with") else ""
                yield f"    {part:<22} {component['class']:<29} {component['parameters']:>13,}{shared}"
        yield f"    {'total':<22} {'':<29} {model['parameters']:>13,}"
        yield ""


def _show_one(name: str, *, as_json: bool) -> int:
    from longvid import bundled

    models = bundled.bundled_models()
    if name not in models:
        names = ", ".join(models) or "none"
        raise ValueError(f"no bundled model is called {name!r}{nearest(name, models)} (bundled: {names})")
    model = _describe(name, models[name])
    model["words"] = known_words(bundled.component_folders(models[name]).get("tokenizer", Path()))
    if as_json:
        print(json.dumps(model, indent=2))
        return 0
    print("\n".join(_table([model])))
    print("  recommended settings")
    for key, value in model["call_defaults"].items():
        print(f"    {key:<26} {value}")
    if model["words"]:
        print("\n  words it knows")
        print("\n".join(f"    {line}" for line in _wrapped(model["words"])))
    return 0


def _wrapped(words: Sequence[str]) -> list[str]:
    import textwrap

    return textwrap.wrap(", ".join(words), width=100)
