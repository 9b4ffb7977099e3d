import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from longvid.samplers import blended, guided, paper_cut, released_cut, to_x0
from longvid.video import Window, fit_windows, plan_windows

FIXTURE = load_file(Path(__file__).parents[1] / "fixtures" / "streaming_t2v" / "v_randomized_blending.safetensors")
CUTS = [paper_cut, released_cut]
T = torch.tensor(500)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip_predictor(sample, timestep):
    """A frame's prediction depends on its neighbours in the clip, on its place in it, and on the time."""
    place = torch.arange(sample.shape[2]).reshape(1, 1, -1, 1, 1) / sample.shape[2]
    return torch.tanh(sample.cumsum(2) / 5 + place + timestep / 1000)


def framewise(sample, timestep):
    return torch.sin(sample + timestep / 1000)


def replayed(cuts):
    """A cut rule that gives recorded cuts, one after another."""
    remaining = iter(cuts)
    return lambda overlap, generator: int(next(remaining))


# --- the recorded run of the released code ---------------------------------------------------------------------------

RELEASED_WINDOWS = fit_windows(56, 24, 8)


def toy_network(sample, timestep, conditions):
    """The fixture's v network: a convolution along the frames of the clip, zero padded at its borders."""
    rows = sample.permute(0, 3, 4, 1, 2).reshape(-1, *sample.shape[1:3])
    rows = F.conv1d(rows, FIXTURE["toy.W"], padding=2)
    mixed = rows.reshape(sample.shape[0], *sample.shape[3:], *rows.shape[1:]).permute(0, 3, 4, 1, 2)
    return torch.tanh(mixed + conditions["y"].reshape(1, -1, 1, 1, 1) + timestep / 1000) + 0.3 * sample


def released_x0(cuts):
    """Guided v prediction of every window with its own rescale, as x0, blended with the recorded cuts."""
    positive, negative = ({"y": row} for row in FIXTURE["toy.y"])
    velocity = guided(toy_network, [positive, negative], [6.5], batched=False, rescale=0.2)

    def x0(sample, timestep):
        sigma = FIXTURE["expected.schedule_sigma_vp"][timestep]
        return (1 - sigma**2).sqrt() * sample - sigma * velocity(sample, timestep)

    return x0, blended(x0, RELEASED_WINDOWS, cut=replayed(cuts))


def relative_error(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


def test_recorded_clips_are_joined_as_the_released_code_joins_them():
    clips = iter(FIXTURE["step0.per_chunk_x0"])
    predict = blended(lambda sample, t: next(clips), RELEASED_WINDOWS, cut=replayed(FIXTURE["input.offsets"][0]))
    assert torch.equal(predict(FIXTURE["step0.xt_model_input"], T), FIXTURE["step0.blended_x0"])


def test_the_first_step_of_the_released_code_is_reproduced_clip_by_clip():
    x0, x0_of_video = released_x0(FIXTURE["input.offsets"][0])
    sample, timestep = FIXTURE["step0.xt_model_input"], FIXTURE["expected.timesteps"][0]
    for window, expected in zip(RELEASED_WINDOWS, FIXTURE["step0.per_chunk_x0"], strict=True):
        assert relative_error(x0(sample[:, :, window.frames], timestep), expected) < 1e-4
    assert relative_error(x0_of_video(sample, timestep), FIXTURE["step0.blended_x0"]) < 1e-4


def test_the_whole_run_of_the_released_code_is_reproduced():
    """DPM-Solver++(2M) SDE, midpoint, with the recorded noise and cuts: 30 evaluations of a 56 frame video."""
    sigmas, timesteps = FIXTURE["expected.sigmas_k"], FIXTURE["expected.timesteps"]
    _, predict = released_x0(FIXTURE["input.offsets"].flatten())
    x, before = FIXTURE["expected.noised"] * sigmas[0], None
    for step, timestep in enumerate(timesteps):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        x0 = predict(x / (1 + sigma**2).sqrt(), timestep)
        if sigma_next == 0:
            x = x0
            break
        h = (sigma / sigma_next).log()
        x = sigma_next / sigma * torch.exp(-h) * x - torch.expm1(-2 * h) * x0
        if before is not None:
            x = x - 0.5 * torch.expm1(-2 * h) * (h / before[1]) * (x0 - before[0])
        x = x + FIXTURE["input.step_noise"][step] * sigma_next * (-torch.expm1(-2 * h)).sqrt()
        before = x0, h
    assert relative_error(x0, FIXTURE["expected.blended_x0_last"]) < 1e-4
    assert relative_error(x, FIXTURE["expected.final_latents"]) < 1e-4


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
def test_one_window_is_the_predictor_itself(cut):
    sample = noise(2, 4, 6, 3, 3)
    for size in (6, 24):
        predict = blended(clip_predictor, fit_windows(6, size, 4), cut=cut)
        assert torch.equal(predict(sample, T), clip_predictor(sample, T))


@pytest.mark.parametrize("cut", CUTS)
def test_a_predictor_that_acts_frame_by_frame_gives_what_it_gives_unwindowed(cut):
    for num_frames, size, overlap in [
        (1, 4, 1),
        (9, 4, 1),
        (17, 4, 3),
        (24, 24, 8),
        (25, 24, 8),
        (40, 24, 8),
        (7, 3, 0),
    ]:
        sample = noise(1, 2, num_frames, 2, 2)
        predict = blended(framewise, fit_windows(num_frames, size, overlap), cut=cut)
        assert torch.equal(predict(sample, T), framewise(sample, T))


def test_every_frame_comes_from_a_window_that_covers_it_for_any_length():
    for num_frames, (size, overlap) in itertools.product(range(1, 30), [(1, 0), (4, 3), (5, 2), (8, 4), (8, 0)]):
        windows = fit_windows(num_frames, size, overlap)
        numbers = itertools.count()
        predict = blended(lambda part, t: torch.full_like(part, next(numbers)), windows)  # noqa: B023 (called here)
        owner = predict(torch.full((1, 1, num_frames, 1, 1), math.nan), T).flatten().long().tolist()
        assert all(windows[index].start <= frame < windows[index].stop for frame, index in enumerate(owner))
        assert owner == sorted(owner)  # a border is crossed once


@pytest.mark.parametrize(("cut", "kept"), [(paper_cut, lambda j: 1 - j / 9), (released_cut, lambda j: 1 - j / 8)])
def test_the_window_before_keeps_an_overlap_frame_as_often_as_the_closed_form_says(cut, kept, seeded):
    numbers = itertools.cycle((1.0, 0.0))  # 1: the window before, 0: the one behind
    predict = blended(lambda part, t: torch.full_like(part, next(numbers)), fit_windows(40, 24, 8), seeded(), cut=cut)
    draws = 2000
    sample = torch.zeros(1, 1, 40, 1, 1)
    share = torch.stack([predict(sample, T).flatten()[16:24] for _ in range(draws)]).mean(0)
    expected = torch.tensor([kept(j) for j in range(1, 9)])
    assert (share - expected).abs().max() < 4 * 0.5 / math.sqrt(draws)
    assert expected[-1] > 0 or share[-1] == 0


@pytest.mark.parametrize(("cut", "values"), [(paper_cut, range(5)), (released_cut, range(4))])
def test_cuts_take_exactly_the_values_of_their_range(cut, values, seeded):
    generator = seeded()
    assert {cut(4, generator) for _ in range(200)} == set(values)


def test_cuts_are_drawn_from_the_generator_alone_and_anew_at_every_call(seeded):
    windows, sample = fit_windows(40, 8, 4), noise(1, 2, 40, 2, 2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    predict, again = (blended(clip_predictor, windows, seeded(3)) for _ in range(2))
    first, second = predict(sample, T), predict(sample, T)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again(sample, T), first) and torch.equal(again(sample, T), second)
    assert not torch.equal(first, second)


def test_with_a_generator_per_video_a_video_does_not_depend_on_its_neighbours(seeded):
    windows, sample = fit_windows(40, 8, 4), noise(3, 2, 40, 2, 2)
    together = blended(clip_predictor, windows, [seeded(index) for index in range(3)])(sample, T)
    for index in range(3):
        alone = blended(clip_predictor, windows, seeded(index))(sample[index : index + 1], T)
        assert torch.equal(together[index : index + 1], alone)
    with pytest.raises(ValueError, match="one generator per video, 3 in all; got 2"):
        blended(clip_predictor, windows, [seeded(), seeded()])(sample, T)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_blending_epsilon_x0_or_the_next_sample_is_the_same_for_ddim(eta):
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(10)
    timestep, windows, cuts = scheduler.timesteps[4], fit_windows(21, 8, 3), [2, 0, 3, 5]
    sample, shared = noise(1, 2, 21, 3, 3), noise(1, 2, 21, 3, 3, seed=1)

    def step(prediction, part, variance_noise):
        return scheduler.step(prediction, timestep, part, eta=eta, variance_noise=variance_noise).prev_sample

    epsilon = blended(clip_predictor, windows, cut=replayed(cuts))(sample, timestep)
    by_epsilon = step(epsilon, sample, shared if eta else None)

    noises = iter([shared[:, :, window.frames] if eta else None for window in windows])
    each_step = blended(lambda x, t: step(clip_predictor(x, t), x, next(noises)), windows, cut=replayed(cuts))
    torch.testing.assert_close(each_step(sample, timestep), by_epsilon, atol=1e-5, rtol=1e-5)

    x0 = blended(lambda x, t: to_x0(clip_predictor(x, t), x, t, scheduler), windows, cut=replayed(cuts))
    expected = to_x0(epsilon, sample, timestep, scheduler)
    torch.testing.assert_close(x0(sample, timestep), expected, atol=1e-5, rtol=1e-5)


def test_it_wraps_guided_predictors_and_itself(seeded):
    positive, negative = {"shift": torch.tensor([1.0])}, {"shift": torch.tensor([0.0])}

    def conditional(sample, timestep, conditions):
        return framewise(sample + conditions["shift"].reshape(-1, 1, 1, 1, 1), timestep)

    sample, predict = noise(1, 2, 13, 2, 2), guided(conditional, [positive, negative], [6.5])
    assert torch.equal(blended(predict, fit_windows(13, 4, 2), seeded())(sample, T), predict(sample, T))
    inner = blended(clip_predictor, fit_windows(8, 4, 2), seeded())
    outer = blended(inner, fit_windows(20, 8, 2), seeded())
    assert outer(noise(1, 2, 20, 2, 2), T).isfinite().all()


def test_every_window_may_have_a_predictor_of_its_own():
    windows = fit_windows(13, 4, 1)
    constants = [lambda part, t, k=k: torch.full_like(part, k) for k in range(len(windows))]
    owner = blended(constants, windows, cut=lambda overlap, generator: overlap)(torch.zeros(1, 1, 13, 1, 1), T)
    assert owner.flatten().tolist() == [0] * 4 + [1] * 3 + [2] * 3 + [3] * 3
    with pytest.raises(ValueError, match="expected one predictor for each of 4 windows; got 3"):
        blended(constants[:3], windows)


def test_only_one_window_is_ever_moved_to_the_device():
    seen = []

    def predict(sample, timestep):
        seen.append((sample.device.type, timestep.device.type, sample.shape[2]))
        return torch.zeros(sample.shape, dtype=torch.float64)  # stands for a result on the device

    sample = noise(1, 2, 20, 2, 2)
    result = blended(predict, fit_windows(20, 8, 2), device="meta")(sample, T)
    assert seen == [("meta", "meta", 8)] * 3
    assert result.device == sample.device and result.dtype == torch.float64


def test_gradients_flow_to_the_window_that_a_frame_came_from():
    sample = noise(1, 1, 12, 1, 1).requires_grad_()
    blended(framewise, fit_windows(12, 8, 4), cut=lambda overlap, generator: 2)(sample, T).sum().backward()
    torch.testing.assert_close(sample.grad, torch.cos(sample.detach() + 0.5))


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ((), "at least one window"),
        (plan_windows(20, 16, 8), "inside the video, each new from frame 16 on"),
        ([Window(0, 0, 8, 0), Window(1, 9, 17, 0)], "each new from frame 8 on"),
        ([Window(0, 2, 8, 0)], "each new from frame 0 on"),
        ([Window(0, 0, 8, 0), Window(1, 4, 8, 4)], "each new from frame 8 on"),
    ],
)
def test_windows_that_leave_a_gap_or_the_video_are_refused(windows, message):
    with pytest.raises(ValueError, match=message):
        blended(framewise, windows)


def test_what_does_not_fit_the_windows_is_refused():
    windows = fit_windows(20, 8, 4)
    with pytest.raises(ValueError, match=r"sample \(B, C, 20, h, w\).*got \(1, 2, 19, 2, 2\)"):
        blended(framewise, windows)(noise(1, 2, 19, 2, 2), T)
    with pytest.raises(ValueError, match="expected 8 predicted frames"):
        blended(lambda x, t: x[:, :, 1:], windows)(noise(1, 2, 20, 2, 2), T)
    with pytest.raises(ValueError, match=r"a cut must lie in \[0, 4\], the overlap; got 5"):
        blended(framewise, windows, cut=lambda overlap, generator: 5)(noise(1, 2, 20, 2, 2), T)
