"""Mitigating gradient sampling against Algorithm 1 in float64, its gradient by autograd, and its laws."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from safetensors.torch import load_file

from longvid.samplers import GuidanceSchedule, guided, mitigated, mitigating_gradient, to_x0

FOLDER = Path(__file__).parents[1] / "fixtures" / "harivo"
FIXTURE = load_file(FOLDER / "mg_sampling.safetensors")
CASES = json.loads((FOLDER / "mg_sampling.json").read_text())["cases"]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def video(num_frames=6, seed=0, step=0.3, **options):
    """A clean video whose frames drift apart slowly."""
    first = noise(1, 4, 1, 4, 4, seed=seed, **options)
    return first + step * noise(1, 4, num_frames, 4, 4, seed=seed + 1, **options).cumsum(2)


def noised(clean, share, seed=9):
    epsilon = noise(*clean.shape, seed=seed, dtype=clean.dtype)
    return epsilon, share**0.5 * clean + (1 - share) ** 0.5 * epsilon


def largest(actual, expected):
    return float((actual - expected).abs().max())


# --- Algorithm 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_algorithm_1_is_reproduced(case, dtype, tolerance):
    part = {name: FIXTURE[f"{case}.{name}"] for name in ("eps", "x_t", "alpha_bar", "alpha", "eps_out")}
    eps, x_t = part["eps"].to(dtype), part["x_t"].to(dtype)
    out = mitigating_gradient(eps, x_t, part["alpha_bar"].to(dtype), float(part["alpha"]))
    assert out.dtype == dtype and largest(out, part["eps_out"]) < tolerance
    assert CASES[case]["kind"] != "static" and CASES[case]["F"] > 2 or torch.equal(out, eps)


@pytest.mark.parametrize("two_sided", [False, True])
def test_it_is_the_gradient_of_eq_7_by_autograd(two_sided):
    """The score gets alpha * omega * d/dx0 of the sum of kernels; epsilon = -sqrt(1 - abar) * score."""
    share, clean = 0.4, video(7)
    epsilon, sample = noised(clean, share)
    omega, differences = math.sqrt((1 - share) / share), clean.diff(dim=2)
    bandwidth = differences.square().sum((1, 3, 4)).sqrt().median() ** 2 / math.log(6)

    def similarity(frames, fixed):
        pairs = frames[:, :, 1:] - (frames if two_sided else fixed)[:, :, :-1]
        return torch.exp(-pairs.square().sum((1, 3, 4)) / bandwidth).sum()

    moving = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(similarity(moving, clean), moving)
    out = mitigating_gradient(epsilon, sample, share, 40.0, two_sided=two_sided)
    assert largest(out, epsilon - 40.0 * omega * gradient) < 1e-10


def test_a_pair_at_the_median_moves_by_the_closed_form_and_a_cut_is_left_alone():
    clean = torch.zeros(1, 1, 8, 2, 2, dtype=torch.float64)
    clean[0, 0, :, 0, 0] = torch.tensor([0, 1, 2, 3, 4, 5, 105, 106.0])  # six steps of length 1 and a cut
    share, n = 0.5, 7
    epsilon, sample = noised(clean, share)
    moved = (sample - 0.5**0.5 * mitigating_gradient(epsilon, sample, share, 0.1)) / 0.5**0.5 - clean
    expected = torch.full((7,), -2 * 0.1 * math.log(n) / n, dtype=torch.float64)  # exp(-log n) = 1 / n
    expected[5] = 0.0
    assert largest(moved[0, 0, 1:, 0, 0], expected) < 1e-9 and largest(moved[0, 0, 0], torch.zeros(2, 2)) < 1e-9


def test_a_video_becomes_smoother_and_its_first_frame_stays():
    share, clean = 0.5, video(24, step=0.5)
    epsilon, sample = noised(clean, share)

    def roughness(scale):
        eps = mitigating_gradient(epsilon, sample, share, scale)
        assert torch.equal(eps[:, :, 0], epsilon[:, :, 0])
        x0 = (sample - (1 - share) ** 0.5 * eps) / share**0.5
        return float(x0.diff(dim=2).square().sum())

    assert roughness(2.0) < roughness(1.0) < roughness(0.0)  # latents of 64 numbers, not 4096


def test_every_video_of_a_batch_has_a_median_of_its_own_and_may_have_a_noise_level_of_its_own():
    both = torch.cat([video(5, step=0.1), video(5, seed=3, step=3.0)])
    shares = torch.tensor([0.3, 0.8], dtype=torch.float64)
    pairs = [noised(both[i : i + 1], float(shares[i]), seed=i) for i in range(2)]
    epsilon, sample = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    together = mitigating_gradient(epsilon, sample, shares)
    for i, (eps, x) in enumerate(pairs):
        assert largest(together[i : i + 1], mitigating_gradient(eps, x, float(shares[i]))) < 1e-12


@pytest.mark.parametrize("num_frames", [1, 2])
def test_one_or_two_frames_come_back_as_they_are(num_frames):
    epsilon, sample = noised(video(num_frames), 0.5)
    assert torch.equal(mitigating_gradient(epsilon, sample, 0.5), epsilon)


def test_equal_frames_come_back_as_they_are_also_beside_others():
    still = video(1).expand(-1, -1, 6, -1, -1)
    epsilon, sample = noised(torch.cat([still, video(6)]), 0.5)
    out = mitigating_gradient(epsilon, sample, 0.5)
    assert torch.equal(out[0], epsilon[0]) and not torch.equal(out[1], epsilon[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0047, 0.5, 0.9991])
def test_half_precision_is_computed_in_single_and_stays_finite(dtype, share):
    clean = 100 * video(6, dtype=torch.float32)  # squared norms far beyond what float16 holds
    epsilon, sample = (tensor.to(dtype) for tensor in noised(clean, share))
    out = mitigating_gradient(epsilon, sample, share, 40.0)
    expected = mitigating_gradient(epsilon.float(), sample.float(), share, 40.0)
    assert out.dtype == dtype and out.isfinite().all()
    assert torch.equal(out, expected.to(dtype))


@pytest.mark.parametrize("share", [0.0, 2.0**-24, 1.0])
def test_without_signal_or_without_noise_the_prediction_comes_back_as_it_is(share):
    epsilon = noise(1, 4, 6, 4, 4)
    sample = epsilon if share < 0.5 else video()
    out = mitigating_gradient(epsilon, sample, share)
    assert torch.equal(out, epsilon)


def test_the_move_can_be_limited_to_a_share_of_the_difference():
    share, clean = 0.01, video(6, step=0.01)  # nearly still at much noise: the paper's formula overshoots
    epsilon, sample = noised(clean, share)

    def moves(max_ratio):
        eps = mitigating_gradient(epsilon, sample, share, 40.0, max_ratio=max_ratio)
        x0 = (sample - (1 - share) ** 0.5 * eps) / share**0.5
        moved, difference = (
            part.square().sum((1, 3, 4)).sqrt() for part in ((x0 - clean)[:, :, 1:], clean.diff(dim=2))
        )
        return float((moved / difference).max())

    assert moves(None) > 10
    assert moves(0.5) == pytest.approx(0.5, rel=1e-4)


# --- around a predictor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("make", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_any_scheduler_and_prediction_type_moves_the_same_clean_estimate(kind, make):
    from longvid.samplers import alpha_bar, from_x0

    scheduler = make(prediction_type=kind)
    scheduler.set_timesteps(10)
    clean, timestep = video(6), scheduler.timesteps[3]
    share = alpha_bar(scheduler, timestep).double()
    epsilon, sample = noised(clean, float(share))
    predict = mitigated(lambda x, t: from_x0(clean, x, t, scheduler), scheduler, 40.0)
    moved = to_x0(predict(sample, timestep), sample, timestep, scheduler)
    eps = mitigating_gradient(epsilon, sample, share, 40.0)
    expected = (sample - (1 - share).sqrt() * eps) / share.sqrt()
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-6)


def test_it_wraps_a_guided_predictor_behind_the_guidance():
    scheduler, sample, t = DDIMScheduler(), noise(1, 4, 5, 4, 4), torch.tensor(500)
    branches = [{"shift": torch.tensor([1.0])}, {"shift": torch.tensor([0.0])}]
    inner = guided(lambda x, t, c: torch.sin(x + c["shift"].reshape(-1, 1, 1, 1, 1)), branches, [6.5])
    expected = mitigating_gradient(inner(sample, t), sample, scheduler.alphas_cumprod[500].double(), 40.0)
    torch.testing.assert_close(mitigated(inner, scheduler)(sample, t), expected)


def test_a_scale_of_zero_and_a_schedule_of_zeros_leave_the_prediction():
    scheduler, sample = DDIMScheduler(), noise(1, 4, 5, 4, 4)
    assert torch.equal(mitigated(lambda x, t: x.sin(), scheduler, 0.0)(sample, torch.tensor(500)), sample.sin())
    early = mitigated(lambda x, t: x.sin(), scheduler, GuidanceSchedule(high=40.0, low=0.0))
    assert torch.equal(early(sample, torch.tensor(699)), sample.sin())
    always = mitigated(lambda x, t: x.sin(), scheduler, 40.0)
    assert torch.equal(early(sample, torch.tensor(700)), always(sample, torch.tensor(700)))


def test_history_joins_the_differences_and_only_the_new_frames_move():
    """The same as the whole video, of which the first frames are known exactly."""
    scheduler, t = DDIMScheduler(prediction_type="sample"), torch.tensor(500)
    whole, sample = video(7), noise(1, 4, 7, 4, 4)
    expected = mitigated(lambda x, t: whole, scheduler, 5.0)(sample, t)
    predict = mitigated(lambda x, t: whole[:, :, 3:], scheduler, 5.0, history=lambda: whole[:, :, :3])
    torch.testing.assert_close(predict(sample[:, :, 3:], t), expected[:, :, 3:])
    single = mitigated(lambda x, t: whole[:, :, 6:], scheduler, 5.0, history=whole[:, :, :6])
    torch.testing.assert_close(single(sample[:, :, 6:], t), expected[:, :, 6:])
    nothing = mitigated(lambda x, t: whole, scheduler, 5.0, history=lambda: None)
    assert torch.equal(nothing(sample, t), expected)


def test_gradients_flow_through_it():
    sample = noise(1, 4, 5, 4, 4).requires_grad_()
    mitigated(lambda x, t: x.sin(), DDIMScheduler())(sample, torch.tensor(300)).sum().backward()
    assert sample.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1.0}, "scale of the mitigating gradient must be at least 0; got -1"),
        ({"scale": math.nan}, "must be at least 0; got nan"),
        ({"max_ratio": 0.0}, "max_ratio must be above 0, or None; got 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, message):
    epsilon, sample = noised(video(), 0.5)
    with pytest.raises(ValueError, match=message):
        mitigating_gradient(epsilon, sample, 0.5, **options)
    with pytest.raises(ValueError, match=message):
        mitigated(lambda x, t: x, DDIMScheduler(), **options)


def test_shapes_that_do_not_fit_are_refused():
    epsilon, sample = noised(video(), 0.5)
    with pytest.raises(ValueError, match=r"one shape; got \(1, 4, 6, 4, 4\) and \(1, 4, 5, 4, 4\)"):
        mitigating_gradient(epsilon, sample[:, :, 1:], 0.5)
    with pytest.raises(ValueError, match=r"history must be \(1, 4, M, 4, 4\); got \(1, 3, 2, 4, 4\)"):
        mitigating_gradient(epsilon, sample, 0.5, history=torch.zeros(1, 3, 2, 4, 4))
