"""A window that goes on from a finished one."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from longvid.samplers import add_noise, continued, to_x0, whole_cut


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


KNOWN, EPSILON, SAMPLE = noise(2, 3, 4, 2, 2), noise(2, 3, 4, 2, 2, seed=1), noise(2, 3, 9, 2, 2, seed=2)
KINDS = ["epsilon", "v_prediction", "sample"]


def scheduler(make=DDIMScheduler, **options):
    made = make(**options)
    made.set_timesteps(8)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [DDIMScheduler, EulerDiscreteScheduler])
def test_the_held_frames_are_seen_noised_and_predicted_to_be_what_they_are(kind, make):
    sampler, seen = scheduler(make, prediction_type=kind), []
    timestep = sampler.timesteps[2]

    def predict(sample, t):
        seen.append(sample)
        return sample.sin()

    result = continued(predict, KNOWN, EPSILON, sampler, cut=lambda overlap, generator: 3)(SAMPLE, timestep)
    assert torch.equal(seen[0][:, :, 3:], SAMPLE[:, :, 3:]) and torch.equal(result[:, :, 3:], SAMPLE[:, :, 3:].sin())
    expected = add_noise(KNOWN, EPSILON, timestep, sampler)
    torch.testing.assert_close(seen[0][:, :, :3], expected[:, :, :3])
    x0 = to_x0(result, SAMPLE, timestep, sampler)[:, :, :3]
    torch.testing.assert_close(x0, KNOWN[:, :, :3], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [DDIMScheduler, EulerDiscreteScheduler])
def test_held_frames_can_be_seen_less_noisy_and_are_predicted_to_be_what_they_are_all_the_same(make):
    sampler, seen = scheduler(make), []
    timestep = sampler.timesteps[2]

    def predict(sample, t):
        seen.append((sample, t))
        return sample.sin()

    result = continued(predict, KNOWN, EPSILON, sampler, cut=whole_cut, context_noise=0.5)(SAMPLE, timestep)
    [(sample, told)] = seen
    assert told == timestep and torch.equal(sample[:, :, 4:], SAMPLE[:, :, 4:])
    torch.testing.assert_close(sample[:, :, :4], add_noise(KNOWN, EPSILON, timestep / 2, sampler))
    torch.testing.assert_close(to_x0(result, SAMPLE, timestep, sampler)[:, :, :4], KNOWN, atol=1e-4, rtol=1e-4)


def test_without_held_frames_it_is_the_predictor():
    predict = continued(lambda x, t: x.sin(), KNOWN, EPSILON, scheduler(), cut=lambda overlap, generator: 0)
    assert torch.equal(predict(SAMPLE, torch.tensor(500)), SAMPLE.sin())


def test_an_overlap_that_is_always_held_ends_as_the_finished_frames():
    sampler = scheduler(set_alpha_to_one=True, clip_sample=False)
    predict = continued(lambda x, t: x.cos(), KNOWN, EPSILON, sampler, cut=lambda overlap, generator: overlap)
    latents = torch.cat([EPSILON, SAMPLE[:, :, 4:]], dim=2)
    for t in sampler.timesteps:
        latents = sampler.step(predict(latents, t), t, latents).prev_sample
    torch.testing.assert_close(latents[:, :, :4], KNOWN, atol=1e-4, rtol=1e-4)


def test_cuts_are_drawn_anew_from_the_generator_and_every_video_may_have_its_own(seeded):
    def held(generator, sample=SAMPLE, known=KNOWN, epsilon=EPSILON):
        predict = continued(lambda x, t: torch.zeros_like(x), known, epsilon, scheduler(), generator)
        rows = [predict(sample, torch.tensor(500))[:, 0, :4, 0, 0] != 0 for _ in range(8)]
        return torch.stack(rows).sum(-1)

    assert torch.equal(held(seeded()), held(seeded()))
    assert len(set(held(seeded())[:, 0].tolist())) > 1
    together = held([seeded(0), seeded(1)])
    for i in range(2):
        rows = slice(i, i + 1)
        assert torch.equal(held(seeded(i), SAMPLE[rows], KNOWN[rows], EPSILON[rows])[:, 0], together[:, i])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"of one shape; got \(2, 3, 4, 2, 2\) and \(2, 3, 9, 2, 2\)"):
        continued(lambda x, t: x, KNOWN, SAMPLE, scheduler())
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"context_noise is a share of the timestep, in \[0, 1\]; got {share}"):
            continued(lambda x, t: x, KNOWN, EPSILON, scheduler(), context_noise=share)
    predict = continued(lambda x, t: x, KNOWN, EPSILON, scheduler())
    with pytest.raises(ValueError, match=r"begins with \(2, 3, 4, 2, 2\); got \(2, 3, 3, 2, 2\)"):
        predict(SAMPLE[:, :, :3], torch.tensor(500))
    wrong = continued(lambda x, t: x, KNOWN, EPSILON, scheduler(), cut=lambda overlap, generator: 5)
    with pytest.raises(ValueError, match=r"a cut must lie in \[0, 4\], the overlap; got 5"):
        wrong(SAMPLE, torch.tensor(500))
