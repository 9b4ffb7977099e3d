"""What the examples of StreamingT2V and the enhancer say about a model is true; the notebook runs from its cells."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import silu

import tiny
from longvid.sprites import vocabulary

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import blend_windows
import follow_streaming_t2v

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a red circle moving right"
CELLS = re.findall(
    r"^%% (\w+)\n(.*?)\s*(?=^%%|\Z)", (ROOT / "examples/streaming_t2v.cells").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def pipe():
    return tiny.streaming_t2v()


@pytest.fixture(scope="module")
def lines(pipe):
    return list(follow_streaming_t2v.follow(pipe, PROMPT))


def numbers(line):
    return [float(number) for number in re.findall(r"-?\d+\.\d+|-?\d+", line)]


def test_the_walk_follows_the_second_chunk_and_decodes_only_its_new_frames(lines):
    assert lines[1] == "frames 8-23, of which 16-23 are new"
    assert "  latents 1×4×16×4×4; frames encoded: 0, decoded: 8 -> 1×3×8×32×32" in lines
    assert lines[-1] == "    98 kB at any length; the anchor is the same"


def test_the_walk_shows_the_gates_of_the_model(lines, pipe):
    (line,) = [line for line in lines if line.startswith("  gate")]
    gates = torch.stack([silu(mixer.alpha) for mixer in pipe.apm.mixers])
    torch.testing.assert_close(torch.tensor(numbers(line)), gates.detach(), atol=5e-4, rtol=0)


def test_the_attention_over_time_of_a_pixel_sums_to_one_hundred_percent(lines):
    begin = next(number for number, line in enumerate(lines) if line.startswith("    frame   at"))
    rows = [numbers(line) for line in lines[begin + 1 : begin + 5]]
    assert numbers(lines[begin]) == list(range(8, 16)) and [row[0] for row in rows] == [8, 15, 16, 23]
    assert all(len(row) == 9 and sum(row[1:]) == pytest.approx(100, abs=4) for row in rows)


def test_the_walk_of_a_model_with_fresh_memories_says_that_nothing_changes():
    unet = tiny.video_unet()
    fresh = tiny.streaming_t2v(unet=unet)
    for parameter in (*fresh.cam.parameters(), *fresh.apm.parameters()):
        torch.nn.init.zeros_(parameter)
    lines = list(follow_streaming_t2v.follow(fresh, PROMPT))
    begin = next(number for number, line in enumerate(lines) if line.startswith("  merged into the skips"))
    merged = [line for line in lines[begin:] if re.match(r"    (skip|middle)", line)]
    layers = [line for line in lines if line.startswith("  changed by")]
    assert len(merged) == len(fresh.cam.skip_mergers) + 1 and len(layers) == 1
    assert all(numbers(line)[-2:] == [0, 0] for line in merged) and not any(numbers(layers[0]))


def test_the_output_replaces_what_is_between_the_marks_of_the_page():
    page = (ROOT / "docs" / "streaming-t2v.md").read_text()
    new = follow_streaming_t2v.written(page, r"\1 of 2")
    assert "```text\n\\1 of 2\n```" in new and follow_streaming_t2v.written(new, r"\1 of 2") == new
    begin, end = (new.index(mark) for mark in (follow_streaming_t2v.BEGIN, follow_streaming_t2v.END))
    assert page.startswith(new[:begin]) and page.endswith(new[end:])
    with pytest.raises(ValueError, match="marks"):
        follow_streaming_t2v.written("a page without", "text")


def test_a_video_of_one_chunk_comes_out_of_all_four_ways_alike():
    video = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"chunk_size": 6, "overlap": 2, "num_inference_steps": 2, "output_type": "pt"}
    ways = blend_windows.four_ways(tiny.enhancer(), PROMPT, video, **options)
    (first, *others), borders = zip(*ways.values(), strict=True)
    assert all(torch.equal(first, other) for other in others) and not any(borders)


def test_chunks_by_themselves_are_cut_in_the_middle_of_what_they_share():
    video, noise = torch.zeros(10, 3, 2, 2), torch.arange(10.0).reshape(1, 1, 10, 1, 1)

    def enhance(video, latents):
        return latents[0].transpose(0, 1) + 100 * latents.min() + torch.zeros_like(video)

    made = blend_windows.alone(enhance, video, noise, blend_windows.fit_windows(10, 6, 2))
    assert made[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 405, 406, 407, 408, 409]


def test_a_border_is_marked_where_it_is():
    picture = blend_windows.picture(torch.ones(5, 3, 4, 4) * 0.5, [2], zoom=(2, 4))[0]
    dark = (picture == 0).all(axis=2)
    assert picture.shape == (8 + 2 * 4 + 8, 20, 3)
    assert dark.any(axis=0).nonzero()[0].tolist() == [7, 8] and dark.any(axis=1).sum() == 16


def test_the_tiny_models_know_every_word_of_the_prompts():
    strings = [
        node.value
        for kind, text in CELLS
        if kind == "code"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    prompts = [text for text in strings if text.startswith("a large") or text.endswith("background")]
    known = {word for phrase in vocabulary() for word in phrase.split()}
    words = {word for text in (*prompts, follow_streaming_t2v.PROMPT) for word in text.split()}
    assert len(prompts) >= 3 and not words - known


@pytest.mark.slow
def test_the_notebook_runs_from_its_cells(tmp_path, monkeypatch):
    pytest.importorskip("IPython")
    defaults = {"num_inference_steps": 1, "guidance_scale": 3.0}
    tiny.streaming_t2v(unet=tiny.video_unet(sample_size=8), call_defaults=defaults).save_pretrained(tmp_path / "s2v")
    tiny.enhancer(vae=tiny.vae(latent_channels=4)).save_pretrained(tmp_path / "enhancer")
    models = {"longvid/streaming-t2v-tiny": "s2v", "longvid/enhancer-tiny": "enhancer"}
    monkeypatch.chdir(tmp_path)
    names = {}
    for kind, text in CELLS:
        for name, folder in models.items():
            text = text.replace(name, str(tmp_path / folder))
        if kind == "code":
            exec(compile(text.replace('_steps": 16', '_steps": 2'), "cell", "exec"), names)
    assert names["writer"].num_frames == 64 and names["frames"].shape == (48, 3, 64, 64)
    assert names["new"].shape == (24, 3, 64, 64) and torch.equal(names["ways"]["its own"], names["new"])
    assert names["better"].shape == (64, 3, 64, 64) and (tmp_path / "slices.png").exists()
