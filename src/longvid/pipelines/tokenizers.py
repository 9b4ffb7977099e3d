"""CLIP tokenizers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer


def load_tokenizer(name: str) -> CLIPTokenizer:
    """The CLIP tokenizer of a folder or a hub id, or of the pipeline there.

    Raises:
        ValueError: if there is none.
    """
    places: list[dict[str, Any]] = [{"subfolder": "tokenizer"}, {}]
    if Path(name).is_dir():  # in a missing subfolder of one, transformers finds half of the files above it
        places = places[:1] if Path(name, "tokenizer").is_dir() else places[1:]
    for place in places:
        try:
            return CLIPTokenizer.from_pretrained(name, **place)
        except (OSError, ValueError, TypeError):
            continue
    raise ValueError(f"there is no CLIP tokenizer in {name!r}")
