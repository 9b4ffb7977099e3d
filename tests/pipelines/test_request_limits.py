"""What a request may ask for, and what a saved state may be continued with: refused at the call, not after work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from longvid.pipelines.checks import check_negatives
from longvid.pipelines.prompts import cut_off, opening_negatives, plan_prompts
from longvid.video.state import StreamState

SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def art_v() -> Any:
    return tiny.art_v()


@pytest.fixture(scope="module")
def streaming() -> Any:
    """Chunks of 6 frames that continue 2."""
    return tiny.streaming_t2v(chunk_size=6, overlap=2, call_defaults={"num_inference_steps": 1, **SIZE})


@pytest.fixture(scope="module")
def harivo() -> Any:
    return tiny.harivo()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state_behind(pipe: Any, num_chunks: int, **options: Any) -> StreamState:
    """The state behind a number of chunks."""
    chunks: Iterator[Any] = pipe.stream("a red circle", generator=generator(), **SIZE, **options)
    return [next(chunks) for _ in range(num_chunks)][-1].state


def test_a_state_knows_how_many_frames_lie_before_it(streaming, tmp_path):
    state = state_behind(streaming, 2, num_frames=8)
    assert state.num_frames == 8
    state.save(tmp_path / "state.safetensors")
    assert StreamState.load(tmp_path / "state.safetensors").num_frames == 8
    with pytest.raises(ValueError, match="num_frames must be an integer of at least 0, or None; got -1"):
        StreamState(0, num_frames=-1)


def test_a_cut_window_is_not_continued_as_if_it_were_whole(streaming):
    cut, whole = state_behind(streaming, 2, num_frames=8), state_behind(streaming, 2, num_frames=10)
    with pytest.raises(ValueError, match="lies behind 8 frames, where its own video ended; .* goes to frame 10"):
        streaming.stream("a red circle", num_frames=20, resume=cut, **SIZE)
    chunks = list(streaming.stream("a red circle", num_frames=14, resume=whole, **SIZE))
    assert [(chunk.start, chunk.stop) for chunk in chunks] == [(10, 14)]


def test_a_state_behind_the_end_is_refused_and_one_at_the_end_has_nothing_left(art_v):
    state = state_behind(art_v, 3, num_frames=3)
    with pytest.raises(ValueError, match="lies behind 3 windows; the request has 2"):
        art_v.stream("a red circle", num_frames=2, resume=state, **SIZE)
    assert list(art_v.stream("a red circle", num_frames=3, resume=state, **SIZE)) == []


def test_windows_of_harivo_are_not_continued_where_they_were_cut(harivo):
    size, overlap = harivo.config["window_size"], harivo.config["overlap"]
    state = state_behind(harivo, 1, num_frames=size - 1, num_inference_steps=1)
    with pytest.raises(ValueError, match=f"lies behind {size - 1} frames"):
        harivo.stream("a red circle", num_frames=2 * size - overlap, resume=state, **SIZE)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 5])
def test_an_interrupted_video_keeps_its_frames_and_the_masks_made_so_far(art_v, stop_at):
    calls = []

    def stop(pipe: Any, *_: Any) -> dict:
        calls.append(1)
        pipe._interrupt = len(calls) == stop_at
        return {}

    made = art_v("a red circle", num_frames=3, num_inference_steps=2, output_masks=True, callback_on_step_end=stop,
                 output_type="pt", generator=generator(), **SIZE)  # fmt: skip
    whole = art_v("a red circle", num_frames=3, num_inference_steps=2, output_masks=True,
                  output_type="pt", generator=generator(), **SIZE)  # fmt: skip
    num_frames = made.frames.shape[1]
    assert num_frames == made.masks.shape[2] and num_frames < 3
    finished = (stop_at - 1) // 3  # a step of this scheduler calls the network twice, the last one once
    assert torch.equal(made.frames[:, :finished], whole.frames[:, :finished])
    assert torch.equal(made.masks[:, :, :finished], whole.masks[:, : made.masks.shape[1], :finished])


def test_every_video_opens_with_its_own_negative_prompt():
    several = plan_prompts([["a", "b"], ["c", "d"]], None, num_frames=4, frames_per_prompt=2, default_num_frames=4)
    assert opening_negatives(["w", "x", "y", "z"], several, 2) == ["w", "w", "y", "y"]
    assert opening_negatives("w", several, 2) == opening_negatives(["w"], several, 2) == ["w"] * 4
    batch = plan_prompts(["a", "b"], None, num_frames=4, frames_per_prompt=None, default_num_frames=4)
    assert opening_negatives(["w", "x"], batch, 1) == ["w", "x"]


def test_the_pipeline_of_a_first_frame_hears_one_negative_prompt_per_video(art_v):
    heard = {}

    def first(prompt: Any, height: int, width: int, negative_prompt: Any = None) -> Any:
        heard.update(prompt=prompt, negative=negative_prompt)
        return ([np.zeros((height, width, 3), dtype=np.uint8) for _ in prompt],)

    call = {"num_frames": 2, "num_inference_steps": 1, "first_frame_pipeline": first, **SIZE}
    art_v(["a", "red"], negative_prompt=["blue", "green"], num_videos_per_prompt=2, **call)
    assert heard == {"prompt": ["a", "a", "red", "red"], "negative": ["blue", "blue", "green", "green"]}
    art_v(["a", "red"], frames_per_prompt=1, negative_prompt=["blue", "green"], **call)
    assert heard == {"prompt": ["a"], "negative": ["blue"]}


def test_the_pipeline_of_a_first_chunk_hears_one_negative_prompt_per_video(streaming):
    heard = {}

    def first(prompt: Any, num_frames: int, height: int, width: int, negative_prompt: Any = None) -> Any:
        heard.update(prompt=prompt, negative=negative_prompt)
        return (torch.zeros(len(prompt), num_frames, 3, height, width),)

    streaming(["a", "red"], frames_per_prompt=4, negative_prompt=["blue", "green"], first_chunk_pipeline=first, **SIZE)
    assert heard == {"prompt": ["a"], "negative": ["blue"]}


def test_an_anchor_lies_in_the_frames_that_are_made(streaming):
    for frame in (-6, 5, 4):
        with pytest.raises(ValueError, match=f"a frame of the first chunk, which has 4; got {frame}"):
            streaming.stream("a", num_frames=4, anchor_frame=frame, **SIZE)
    assert len(streaming("a", num_frames=4, anchor_frame=-4, output_type="pt", **SIZE).frames) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": torch.rand(4, 32, 32)}, "image"),
        ({"video": torch.rand(1, 3, 32, 32)}, "at least 2 frames; got 1"),
        ({"anchor_image": "x.png"}, "anchor_image"),
        ({"num_inference_steps": 1001}, "num_inference_steps must be at most 1000, .*; got 1001"),
        ({"negative_prompt": 5}, "negative_prompt must be a string or a list of strings; got 5"),
        ({"negative_prompt": ["a", "b"]}, "one for each of 1 prompts; got 2"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be a number of at least 0; got inf"),
        ({"anchor_guidance_scale": float("nan")}, "anchor_guidance_scale must be a number"),
    ],
)
def test_what_streaming_t2v_cannot_make_is_refused_at_the_call_and_leaves_no_folder(
    streaming, tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        streaming.stream("a red circle", num_frames=8, **{**SIZE, **options})
    with pytest.raises(ValueError, match=message):
        streaming.generate_to(tmp_path / "run", "a red circle", num_frames=8, **{**SIZE, **options})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_guidance_scale": float("inf")}, "reference_guidance_scale must be a number; got inf"),
        ({"anchor_guidance_scale": float("nan")}, "anchor_guidance_scale must be a number; got nan"),
        ({"video": torch.rand(3, 3, 32, 32), "anchor_frame": 1.5}, "anchor_frame must be a whole number; got 1.5"),
    ],
)
def test_what_art_v_cannot_make_is_refused_at_the_call(art_v, options, message):
    with pytest.raises(ValueError, match=message):
        art_v.stream("a red circle", **SIZE, **options)


def test_embeddings_have_the_shape_that_the_networks_read(art_v):
    width = art_v.unet.config.cross_attention_dim
    for shape, message in (
        ((12, width), r"\(B, N, D\); got \(12, 32\)"),
        ((1, 12, 16), "32 wide for this model; got 16"),
    ):
        with pytest.raises(ValueError, match=message):
            art_v.stream(prompt_embeds=torch.zeros(shape), negative_prompt_embeds=torch.zeros(shape), **SIZE)


def test_negative_prompts_are_one_or_one_per_prompt():
    for fine in (None, "a", ["a"], ["a", "b", "c"]):
        check_negatives(fine, 3)
    for bad in (5, ["a", 5], ["a", "b"], []):
        with pytest.raises(ValueError, match="negative_prompt must be"):
            check_negatives(bad, 3)


def test_a_prompt_that_is_cut_is_warned_of_with_what_is_lost(art_v):
    tokenizer = art_v.tokenizer
    assert cut_off(["a red circle"], tokenizer) == []
    text = "a red circle moving right on a blue background and a green star"
    (lost,) = cut_off([text], tokenizer)
    assert lost and text.replace(" ", "").endswith(lost.replace(" ", ""))
    with pytest.warns(UserWarning, match="reads 12 tokens of a prompt; it does not see: "):
        art_v.encode_prompt(text, negative_prompt="")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        art_v.encode_prompt("a red circle", negative_prompt="blue")
