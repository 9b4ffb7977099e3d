"""Put trained pipeline folders into the package: `python tools/bundle_models.py RUN_FOLDER NAME [--base NAME ...]`.

Weights become float16 safetensors, of which `--bits 8` keeps so many significant bits, as bfloat16 does: the wheel packs them
tighter. A component that equals one of a `--base` is not stored again but named in `shared.json`,
and of one that is a base's with parts added, only those are.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from longvid import LongVideoPipeline, VideoEnhancerPipeline
from longvid.bundled import ADDS_TO, ROOT, SHARED, shared_components
from longvid.pipelines.fingerprint import fingerprint_of

LOADERS = {cls.__name__: cls for cls in (StableDiffusionPipeline, VideoEnhancerPipeline)}


def load(folder: Path) -> DiffusionPipeline:
    """A pipeline folder of longvid's or Stable Diffusion's, in float16."""
    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    loader: type[Any] = LOADERS.get(kind, LongVideoPipeline)
    return loader.from_pretrained(str(folder), dtype=torch.float16)


def bundle(source: Path, name: str, bases: list[str], bits: int | None = None) -> Path:
    """Write `source` below `longvid/bundled/NAME` and return that folder; see `round_weights` for `bits`."""
    target = ROOT / name
    shutil.rmtree(target, ignore_errors=True)
    pipeline = load(source)
    pipeline.save_pretrained(str(target))
    if (source / "clip").is_dir():
        CLIPModel.from_pretrained(source / "clip", dtype=torch.float16).save_pretrained(target / "clip")
    shared: dict[str, str | dict[str, str]] = {}
    for base in bases:
        share(pipeline, base, target, shared)
    if shared:
        (target / SHARED).write_text(json.dumps(shared, indent=2) + "\n")
    for path in target.rglob("*.json"):
        forget_origin(path)
    if bits is not None:
        for path in target.rglob("*.safetensors"):
            round_weights(path, bits)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def share(pipeline: DiffusionPipeline, base: str, target: Path, shared: dict[str, str | dict[str, str]]) -> None:
    """Take out of `target` what `base` stores itself, and note it in `shared`; a base named earlier goes first."""
    stored_elsewhere = shared_components(ROOT / base)
    for part, module in load(ROOT / base).components.items():
        mine = pipeline.components.get(part)
        if part == "scheduler" or part in shared or part in stored_elsewhere or None in (module, mine):
            continue
        if type(mine) is type(module) and fingerprint_of(mine) == fingerprint_of(module):
            shutil.rmtree(target / part)
            shared[part] = f"../{base}/{part}"
        elif isinstance(module, torch.nn.Module) and (added := what_was_added(mine, module)) is not None:
            save_file(added, target / part / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
            shared[part] = {ADDS_TO: f"../{base}/{part}"}


def what_was_added(module: torch.nn.Module, base: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """The tensors of a module that another one has not, or None if not all the other's are in it, bit for bit."""
    mine, other = module.state_dict(), base.state_dict()
    if not all(name in mine and torch.equal(mine[name], tensor) for name, tensor in other.items()):
        return None
    return {name: tensor.contiguous() for name, tensor in mine.items() if name not in other}


def round_weights(path: Path, bits: int) -> None:
    """Round every floating-point tensor of a file to so many significant bits; the bits behind them become zero."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            mantissa, exponent = torch.frexp(tensor.float())
            tensors[name] = torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent).to(tensor.dtype)
    save_file(tensors, path, metadata)


def forget_origin(path: Path) -> None:
    """Take the folder of the training run out of a JSON file."""
    content = json.loads(path.read_text())
    if content.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("name")
    parser.add_argument("--base", nargs="*", default=[])
    parser.add_argument("--bits", type=int, help="significant bits of the weights; all 11 of float16 by default")
    arguments = parser.parse_args()
    folder = bundle(arguments.source, arguments.name, arguments.base, arguments.bits)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB")
