"""The deviation of the starting noise: it scales what is drawn, in every window of every method, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny

PROMPT, SIZE = "a red circle", {"height": 32, "width": 32}
METHODS = {
    "ART-V": (tiny.art_v, {"num_frames": 3}),
    "StreamingT2V": (tiny.streaming_t2v, {"num_frames": 24}),
    "HARIVO, streamed": (tiny.harivo, {"num_frames": 14}),
    "HARIVO, held": (tiny.harivo, {"num_frames": 14, "strategy": "held"}),
    "HARIVO, joint": (tiny.harivo, {"num_frames": 14, "strategy": "joint"}),
}


@pytest.fixture(scope="module", params=METHODS)
def method(request) -> tuple[Any, dict[str, Any]]:
    make, options = METHODS[request.param]
    return make(), {"num_inference_steps": 2, "output_type": "latent", **SIZE, **options}


def starting_noise(pipe: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[list[Tensor], Tensor]:
    """The noise that every window starts from, and the finished latents."""
    seen, denoise = [], pipe.denoise

    def noted(predict, noise, *args):
        seen.append(noise.clone())
        return denoise(predict, noise, *args)

    with monkeypatch.context() as patch:
        patch.setattr(pipe, "denoise", noted)
        frames = pipe(PROMPT, generator=torch.Generator().manual_seed(3), **options).frames
    return seen, frames


def test_every_window_starts_from_the_drawn_noise_times_the_scale(method, monkeypatch):
    pipe, options = method
    plain, video = starting_noise(pipe, monkeypatch, **options)
    same, same_video = starting_noise(pipe, monkeypatch, noise_scale=1, **options)
    scaled, other_video = starting_noise(pipe, monkeypatch, noise_scale=0.25, **options)
    assert len(plain) == len(same) == len(scaled) > 0
    assert torch.equal(video, same_video) and not torch.equal(video, other_video)
    for before, unchanged, after in zip(plain, same, scaled, strict=True):
        assert torch.equal(before, unchanged)
        assert torch.equal(0.25 * before, after)  # a power of two: exact


def test_given_latents_stay_as_they_are(method, monkeypatch):
    pipe, options = method
    factor = pipe.vae_scale_factor
    shape = (1, pipe.latent_channels, options["num_frames"], SIZE["height"] // factor, SIZE["width"] // factor)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    videos = [starting_noise(pipe, monkeypatch, latents=latents, noise_scale=s, **options)[0][0] for s in (1.0, 0.5)]
    count = min(latents.shape[2], videos[0].shape[2])
    for noise in videos:
        assert torch.equal(noise[:, :, :count], latents[:, :, :count])


def test_a_model_may_recommend_a_scale(monkeypatch):
    options = {"num_frames": 2, "num_inference_steps": 2, "output_type": "latent", **SIZE}
    asked, _ = starting_noise(tiny.art_v(), monkeypatch, noise_scale=0.5, **options)
    recommended, _ = starting_noise(tiny.art_v(call_defaults={"noise_scale": 0.5}), monkeypatch, **options)
    assert all(torch.equal(a, b) for a, b in zip(asked, recommended, strict=True))


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf"), "0.5", True])
def test_what_is_no_deviation_is_refused_at_the_call(scale):
    with pytest.raises(ValueError, match="noise_scale must be a number of at least 0; got"):
        tiny.art_v().stream(PROMPT, num_frames=2, noise_scale=scale, **SIZE)
