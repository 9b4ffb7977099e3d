from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import CLIPTokenizer

import tiny
from longvid.pipelines.vocabulary import unknown_words


def tokenizer(**options) -> CLIPTokenizer:
    """Knows the words "a" and "red", and every letter of them."""
    tokens = [
        "a",
        "d",
        "e",
        "r",
        "a</w>",
        "d</w>",
        "e</w>",
        "r</w>",
        "re",
        "red</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[("r", "e"), ("re", "d</w>")], **options)


def pipe(**config) -> SimpleNamespace:
    return SimpleNamespace(config=config, tokenizer=tokenizer())


def test_a_word_that_is_not_one_token_is_unknown():
    words = unknown_words(pipe(closed_vocabulary=True), ["A red, dared RED!", "a zebra dared"])
    assert words == ["dared", "zebra"]


def test_a_model_that_does_not_say_its_vocabulary_is_closed_has_no_unknown_words():
    assert unknown_words(pipe(), ["a zebra"]) == []


def test_the_tokenizer_may_say_so_and_still_does_after_saving(tmp_path):
    tokenizer(closed_vocabulary=True).save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert unknown_words(SimpleNamespace(config={}, tokenizer=loaded), ["a red zebra"]) == ["zebra"]


@pytest.mark.parametrize("text", ["", "...", "red-red"])
def test_marks_between_words_are_no_words(text):
    assert unknown_words(pipe(closed_vocabulary=True), [text]) == []


def test_python_is_warned_of_the_words_that_a_model_never_learned():
    pipe = tiny.art_v()
    pipe.set_progress_bar_config(disable=True)
    pipe.tokenizer.init_kwargs["closed_vocabulary"] = True
    with pytest.warns(UserWarning, match="never learned these words: zebra, snow$"):
        pipe("zebra", num_frames=1, num_inference_steps=1, negative_prompt="snow", height=32, width=32)
