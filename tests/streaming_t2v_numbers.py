"""Numbers of the official StreamingT2V classes (tests/fixtures/streaming_t2v; the JSON beside each says which)."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from longvid.conversion import rename_checkpoint

FOLDER = Path(__file__).parent / "fixtures" / "streaming_t2v"


def tensors(name: str) -> dict[str, Tensor]:
    """Tensors of a fixture; weights are stored in half precision, exactly."""
    return {key: value.float() for key, value in load_file(FOLDER / f"{name}.safetensors").items()}


def parts(*names: str) -> dict[str, dict[str, Tensor]]:
    """Official weights of some fixtures, renamed, by part."""
    official = {}
    for name in names:
        official |= {key: value for key, value in tensors(name).items() if not key.startswith(("input.", "expected."))}
    return rename_checkpoint(official)


def below(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def description(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()
