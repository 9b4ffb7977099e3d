"""Mitigating gradient sampling around the predictors of the other methods: a subclass of five lines each."""

from __future__ import annotations

import torch

import tiny
from longvid import ARTVPipeline, StreamingT2VPipeline, mitigated, mitigating_gradient
from longvid.samplers import alpha_bar, to_epsilon, to_x0

PROMPT = "a red circle"


class SmoothStreamingT2V(StreamingT2VPipeline):
    scale, calls = 5.0, ()

    def predictor(self, window, state, conditions, **options):
        predict = super().predictor(window, state, conditions, **options)
        smooth = mitigated(predict, self.scheduler, self.scale)
        self.calls = (*self.calls, (predict, smooth))
        return smooth


class SmoothARTV(ARTVPipeline):
    scale, calls = 5.0, ()

    def predictor(self, window, state, conditions, **options):
        predict = super().predictor(window, state, conditions, **options)
        known = [state.context[name] for name in ("older", "newest") if name in state.context]
        history = torch.stack(known, dim=2) if known else None
        smooth = mitigated(predict, self.scheduler, self.scale, history=history)
        self.calls = (*self.calls, (predict, smooth, history))
        return smooth


def test_a_chunk_of_streaming_t2v_is_mitigated_as_a_video(seeded):
    pipe = SmoothStreamingT2V(**tiny.streaming_t2v().components)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_frames": 16, "num_inference_steps": 1, "output_type": "latent"}
    assert pipe(PROMPT, generator=seeded(), **options).frames.isfinite().all()
    ((predict, smooth),) = pipe.calls
    sample, t = torch.randn(1, 4, 16, 4, 4, generator=seeded(1)), pipe.scheduler.timesteps[0]
    with torch.no_grad():
        eps, share = predict(sample, t), alpha_bar(pipe.scheduler, t)
        assert not torch.allclose(smooth(sample, t), eps)
        torch.testing.assert_close(
            smooth(sample, t), mitigating_gradient(eps, sample, share, 5.0), rtol=1e-4, atol=1e-4
        )


def test_a_frame_of_art_v_is_mitigated_by_the_two_before_it(art_v, seeded):
    pipe = SmoothARTV(**art_v.components)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_frames": 3, "num_inference_steps": 1, "output_type": "latent"}
    made = pipe(PROMPT, generator=seeded(), **options).frames
    assert made.isfinite().all() and [call[2] is None for call in pipe.calls] == [True, False, False]
    predict, smooth, history = pipe.calls[2]
    assert torch.equal(history, made[:, :, :2])
    sample, t = torch.randn(1, 8, 1, 8, 8, generator=seeded(1)), torch.tensor(300.0)
    with torch.no_grad():
        prediction = predict(sample, t)
        share, eps = alpha_bar(pipe.scheduler, t), to_epsilon(prediction, sample, t, pipe.scheduler)
        x0 = to_x0(prediction, sample, t, pipe.scheduler)
        torch.testing.assert_close(smooth(sample, t), mitigating_gradient(eps, sample, share, 5.0, history=history))
        near = torch.cat([x0 + 0.2 * torch.randn(x0.shape, generator=seeded(k)) for k in (2, 3)], dim=2)
        drawn = mitigated(predict, pipe.scheduler, 5.0, history=near)(sample, t)
        expected = mitigating_gradient(eps, sample, share, 5.0, history=near)
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(drawn, prediction)
