"""What diffusers' own pipeline tests demand of a pipeline."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
import torch

import tiny

PROMPT = "a red circle"
QUICK = {"num_frames": 2, "num_inference_steps": 1, "output_type": "pt"}


def test_the_call_has_every_argument_that_diffusers_expects_with_a_default(art_v):
    parameters = inspect.signature(type(art_v).__call__).parameters
    required = {
        "prompt", "negative_prompt", "prompt_embeds", "negative_prompt_embeds", "height", "width", "guidance_scale",
        "num_inference_steps", "generator", "latents", "output_type", "return_dict", "callback_on_step_end",
        "callback_on_step_end_tensor_inputs", "num_videos_per_prompt",
    }  # fmt: skip
    assert required <= set(parameters)
    assert inspect.isfunction(type(art_v).__call__) and "latents" in art_v._callback_tensor_inputs


def test_encode_prompt_has_the_signature_and_the_single_return_that_diffusers_parses(art_v):
    assert list(inspect.signature(art_v.encode_prompt).parameters) == [
        "prompt", "device", "num_videos_per_prompt", "do_classifier_free_guidance", "negative_prompt",
        "prompt_embeds", "negative_prompt_embeds",
    ]  # fmt: skip
    tree = ast.parse(textwrap.dedent(inspect.getsource(art_v.encode_prompt)))
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert [ast.unparse(node.value) for node in returns] == ["(prompt_embeds, negative_prompt_embeds)"]


def test_text_is_encoded_as_in_stable_diffusion(art_v):
    base = tiny.stable_diffusion()
    for prompt, negative in (("a red circle", None), (["a red circle", "a blue"], ["green", ""])):
        expected = base.encode_prompt(prompt, "cpu", 2, True, negative_prompt=negative)
        for mine, theirs in zip(art_v.encode_prompt(prompt, "cpu", 2, True, negative), expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_encode_prompt_works_in_isolation_and_the_rest_without_the_text_model(seeded):
    pipe = tiny.art_v()
    embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    assert pipe.encode_prompt(PROMPT, "cpu", 1, False)[1] is None
    rest = tiny.art_v(text_encoder=None, tokenizer=None)
    embedded = rest(prompt_embeds=embeds, negative_prompt_embeds=negative, generator=seeded(), **QUICK).frames
    assert torch.equal(embedded, pipe(PROMPT, generator=seeded(), **QUICK).frames)
    with pytest.raises(ValueError, match="needs negative_prompt_embeds"):
        rest(prompt_embeds=embeds, **QUICK)
    assert rest(prompt_embeds=embeds, guidance_scale=1.0, **QUICK).frames.isfinite().all()
    with pytest.raises(ValueError, match="has no text encoder"):
        rest(PROMPT, **QUICK)


def test_components_build_an_equal_pipeline(art_v, seeded):
    same = type(art_v)(**art_v.components)
    same.set_progress_bar_config(disable=True)
    expected = art_v(PROMPT, generator=seeded(), **QUICK).frames
    assert torch.equal(same(PROMPT, generator=seeded(), **QUICK).frames, expected)
    again = type(art_v).from_pipe(art_v)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(again(PROMPT, generator=seeded(), **QUICK).frames, expected)


def test_guidance_changes_the_video_and_a_scale_of_one_turns_it_off(art_v, seeded):
    videos = [art_v(PROMPT, generator=seeded(), guidance_scale=scale, **QUICK).frames for scale in (7.5, 1.0, 0.0)]
    assert not torch.equal(videos[0], videos[1]) and torch.equal(videos[1], videos[2])
    assert not art_v.do_classifier_free_guidance


@pytest.mark.parametrize("offload_type", ["leaf_level", "block_level"])
def test_group_offload_changes_no_bit(art_v, seeded, offload_type):
    expected = art_v(PROMPT, generator=seeded(), **QUICK).frames
    pipe = tiny.art_v()
    pipe.enable_group_offload(
        onload_device="cpu", offload_device="cpu", offload_type=offload_type, num_blocks_per_group=1
    )
    torch.testing.assert_close(pipe(PROMPT, generator=seeded(), **QUICK).frames, expected, atol=1e-5, rtol=1e-5)


def test_model_offload_hooks_are_put_back_after_a_stream_that_was_left(monkeypatch, seeded):
    pipe, calls = tiny.art_v(), []
    monkeypatch.setattr(type(pipe), "enable_model_cpu_offload", lambda self, **options: calls.append(options))
    pipe._all_hooks, pipe._offload_device = [object()], torch.device("cpu")
    stream = pipe.stream(PROMPT, generator=seeded())
    next(stream)
    stream.close()
    assert len(calls) == 1


def test_the_fingerprint_in_a_state_is_computed_once_and_again_after_a_change(seeded, monkeypatch):
    pipe = tiny.art_v()
    first = next(iter(pipe.stream(PROMPT, generator=seeded()))).state.fingerprint
    count, real = [], type(pipe).fingerprint
    monkeypatch.setattr(type(pipe), "fingerprint", lambda self: count.append(1) or real(self))
    assert next(iter(pipe.stream(PROMPT, generator=seeded()))).state.fingerprint == first and not count
    with torch.no_grad():
        pipe.unet.conv_in.weight.add_(1)
    changed = next(iter(pipe.stream(PROMPT, generator=seeded()))).state.fingerprint
    assert len(count) == 1 and changed["unet"] != first["unet"] and changed["vae"] == first["vae"]
