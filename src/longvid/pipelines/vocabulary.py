"""Words that a model with a closed vocabulary never learned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def unknown_words(pipe: Any, texts: Iterable[str]) -> list[str]:
    """The words in `texts` that the model of `pipe` never learned, each once, in the order they come.

    Only a model that says so has unknown words: `closed_vocabulary: true` in its `tokenizer_config.json`, or among the
    pipeline's constants. The tiny models were trained on the captions of a small world, in whose tokenizer every word
    of those captions is one token; a word that falls into several was never seen.
    """
    tokenizer = pipe.tokenizer
    closed = pipe.config.get("closed_vocabulary") or getattr(tokenizer, "init_kwargs", {}).get("closed_vocabulary")
    if not closed or tokenizer is None:
        return []
    words = dict.fromkeys(word.lower() for text in texts for word in _WORD.findall(text))
    return [word for word in words if not _is_one_token(tokenizer, word)]


def _is_one_token(tokenizer: Any, word: str) -> bool:
    tokens = tokenizer.tokenize(word)
    return len(tokens) == 1 and tokens[0] != tokenizer.unk_token
