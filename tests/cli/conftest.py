"""A tiny model folder, and a way to run the command in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import tiny
from longvid.cli.main import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Callable[..., Result]:
    """Run `longvid` with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """An ART-V pipeline folder with random weights and one step per frame."""
    folder = tmp_path_factory.mktemp("model") / "tiny-art-v"
    defaults = {"num_inference_steps": 1, "num_frames": 3, "height": 32, "width": 32}
    tiny.art_v(call_defaults=defaults).save_pretrained(folder)
    return folder
