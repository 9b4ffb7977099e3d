from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import pytest

from longvid.cli.parser import guidance
from longvid.cli.request import GenerateSettings
from longvid.cli.settings import merge_settings, split_overrides


@dataclass
class Inner:
    rate: float = 0.5
    names: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outer:
    steps: int = 10
    label: str | None = None
    inner: Inner = field(default_factory=Inner)


def test_later_sources_win_and_the_rest_keeps_its_default(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("steps: 20\ninner:\n  rate: 0.25\n")
    merged = merge_settings(
        Outer, base={"steps": 15, "label": "b"}, file=file, overrides=["inner.rate=1e-3"], options={"steps": 30}
    )
    assert merged == Outer(30, "b", Inner(1e-3))


def test_any_key_may_follow_a_free_dictionary():
    assert merge_settings(Outer, overrides=["inner.names.eta=0.5", "inner.names.mode=fast"]).inner.names == {
        "eta": 0.5,
        "mode": "fast",
    }


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["step=3"], "command line: unknown option 'step'; did you mean 'steps'?"),
        (["inner.rat=3"], "unknown option 'inner.rat'; did you mean 'inner.rate'?"),
        (["iner.rate=3"], "unknown option 'iner.rate'; did you mean 'inner.rate'?"),
        (["steps=many"], "steps: "),
        (["inner=3"], "inner"),
    ],
)
def test_a_wrong_key_or_value_names_what_was_meant(overrides, hint):
    with pytest.raises(ValueError, match=hint.replace("?", r"\?")):
        merge_settings(Outer, overrides=overrides)


def test_guidance_is_a_number_or_the_fields_of_a_schedule():
    assert [guidance(word) for word in ("7.5", "12.5:7.5", "15:10:7.5")] == [
        7.5,
        {"high": 12.5, "low": 7.5},
        {"high": [15, 10], "low": 7.5},
    ]
    for word in ("strong", "1:2:3:4", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="HIGH:LOW or FROM:TO:LOW"):
            guidance(word)
    merged = merge_settings(GenerateSettings, overrides=["guidance_scale.high=12.5"], options={})
    assert merged.guidance_scale == {"high": 12.5}
    option = merge_settings(GenerateSettings, options={"guidance_scale": guidance("15:10:7.5")})
    assert option.guidance_scale == {"high": [15.0, 10.0], "low": 7.5}


def test_a_wrong_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("inner:\n  ratio: 1\n")
    with pytest.raises(ValueError, match=r"run.yaml: unknown option 'inner.ratio'; did you mean 'inner.rate'\?"):
        merge_settings(Outer, file=file)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "\xff"])
def test_a_file_that_is_no_settings_is_refused(tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="run.yaml"):
        merge_settings(Outer, file=file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        merge_settings(Outer, file=tmp_path / "no.yaml")


def test_one_key_may_not_be_set_in_two_ways_on_the_command_line():
    with pytest.raises(ValueError, match="steps is set twice"):
        merge_settings(Outer, overrides=["steps=3"], options={"steps": 4})


def test_prompts_and_overrides_are_told_apart():
    words = ["a red circle", "num_frames=3", "output.crf=12", "what is 1=1", "x"]
    assert split_overrides(words) == (["a red circle", "what is 1=1", "x"], ["num_frames=3", "output.crf=12"])


def test_several_prompts_share_the_frames_evenly():
    call = GenerateSettings(prompt=["a", "b", "c"], num_frames=8).call_arguments()
    assert call == {"prompt": ["a", "b", "c"], "num_frames": 8, "frames_per_prompt": [3, 3, 2]}


def test_several_prompts_take_sixteen_frames_each_unless_told():
    assert GenerateSettings(prompt=["a", "b"]).call_arguments()["frames_per_prompt"] == [16, 16]
    assert GenerateSettings(prompt=["a", "b"], frames_per_prompt=5).call_arguments()["frames_per_prompt"] == 5


def test_more_prompts_than_frames_are_refused():
    with pytest.raises(ValueError, match="3 prompts need at least 3 frames; got num_frames=2"):
        GenerateSettings(prompt=["a", "b", "c"], num_frames=2).call_arguments()


LITERAL = ["a sign that says ${hello}", "${", "it costs $5 ${a", "???", "what???", r"\${a}", "${label}"]


@pytest.mark.parametrize("text", LITERAL)
def test_a_text_of_a_command_line_or_a_record_means_itself(text):
    assert merge_settings(Outer, options={"label": text}).label == text
    assert merge_settings(Outer, overrides=[f"label={text}", f"inner.names.a={text}"]).inner.names == {"a": text}
    base = {"label": text, "inner": {"names": {"a": [text, {"b": text}]}}}
    assert merge_settings(Outer, base=base) == Outer(label=text, inner=Inner(names={"a": [text, {"b": text}]}))
    assert merge_settings(GenerateSettings, options={"prompt": [text, "b"]}).prompt == [text, "b"]


def test_in_a_file_a_reference_is_the_value_of_another_key(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("label: ${inner.names.word} x\ninner:\n  names:\n    word: a\n")
    assert merge_settings(Outer, file=file).label == "a x"
    assert merge_settings(Outer, file=file, overrides=["inner.names.word=${b}"]).label == "${b} x"
    file.write_text("label: ${nothing}\n")
    with pytest.raises(ValueError, match=r"run.yaml: label: .*nothing"):
        merge_settings(Outer, file=file)


def test_a_complaint_about_a_text_shows_the_text():
    with pytest.raises(ValueError, match=r"steps: Value '\$\{many\} \?\?\?'"):
        merge_settings(Outer, overrides=["steps=${many} ???"])
