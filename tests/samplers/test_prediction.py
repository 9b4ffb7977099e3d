from functools import partial

import diffusers
import pytest
import torch

from longvid.samplers import (
    DPMPP2SAncestralScheduler,
    add_noise,
    alpha_bar,
    from_epsilon,
    from_x0,
    to_epsilon,
    to_x0,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
OURS = {"DPMPP2SAncestralScheduler": DPMPP2SAncestralScheduler}
STEP_GIVES_X0 = [
    ("DDIMScheduler", {"clip_sample": False}),
    ("DDPMScheduler", {"clip_sample": False}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("HeunDiscreteScheduler", {}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    ("KDPM2DiscreteScheduler", {}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    ("DPMPP2SAncestralScheduler", {}),
    ("DPMPP2SAncestralScheduler", {"sigma_snap": True}),
    ("DPMPP2SAncestralScheduler", {"eta": 2.0}),
    ("DPMPP2SAncestralScheduler", {"timestep_spacing": "linspace"}),
]
CONVERTS_TO_X0 = [
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("DPMSolverSinglestepScheduler", {}),
    ("UniPCMultistepScheduler", {}),
    ("SASolverScheduler", {}),
]
ALL_NAMES = sorted(
    {name for name, _ in STEP_GIVES_X0 + CONVERTS_TO_X0 if "KDPM2" not in name}  # slow to build
    | {"PNDMScheduler", "DEISMultistepScheduler", "TCDScheduler", "LCMScheduler"}
)


def make(name, prediction_type="epsilon", **options):
    scheduler_class = OURS.get(name) or getattr(diffusers, name)
    return scheduler_class(prediction_type=prediction_type, **BETAS, **options)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("name", "options"), STEP_GIVES_X0)
def test_x0_equals_what_step_reports(name, options, prediction_type):
    scheduler = make(name, prediction_type, **options)
    scheduler.set_timesteps(12)
    latents = normal(0, 2, 4, 3, 3) * scheduler.init_noise_sigma
    for index, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = normal(index, 2, 4, 3, 3)
        estimate = to_x0(prediction, model_input, timestep, scheduler)
        output = scheduler.step(prediction, timestep, latents)
        expected = output.pred_original_sample
        torch.testing.assert_close(estimate, expected, rtol=2e-4, atol=2e-4)
        latents = output.prev_sample


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("name", "options"), CONVERTS_TO_X0)
def test_x0_equals_the_data_prediction_of_multistep_solvers(name, options, prediction_type):
    scheduler = make(name, prediction_type, **options)
    scheduler.set_timesteps(12)
    latents = normal(0, 2, 4, 3, 3)
    for index, timestep in enumerate(scheduler.timesteps):
        prediction = normal(index, 2, 4, 3, 3)
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        expected = scheduler.convert_model_output(prediction, sample=latents)
        torch.testing.assert_close(to_x0(prediction, latents, timestep, scheduler), expected, rtol=2e-4, atol=2e-4)
        latents = scheduler.step(prediction, timestep, latents).prev_sample


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_conversions_are_inverse_pairs_for_one_timestep_per_sample(name, prediction_type):
    scheduler = make("DDIMScheduler", prediction_type) if name == "PNDMScheduler" else make(name, prediction_type)
    prediction, sample = normal(0, 3, 4, 2, 3, 3), normal(1, 3, 4, 2, 3, 3)
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-3)
    for timesteps in (torch.tensor([20, 500, 900]), torch.tensor(300), 300):
        x0 = to_x0(prediction, sample, timesteps, scheduler)
        epsilon = to_epsilon(prediction, sample, timesteps, scheduler)
        close(from_x0(x0, sample, timesteps, scheduler), prediction)
        close(from_epsilon(epsilon, sample, timesteps, scheduler), prediction)
        close(add_noise(x0, epsilon, timesteps, scheduler), sample)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_gives_back_data_and_noise(prediction_type):
    scheduler = make("DDPMScheduler", prediction_type)
    x0, noise, timesteps = normal(0, 2, 4, 5, 5), normal(1, 2, 4, 5, 5), torch.tensor([100, 800])
    sample = scheduler.add_noise(x0, noise, timesteps)
    torch.testing.assert_close(add_noise(x0, noise, timesteps, scheduler), sample)
    perfect = {"epsilon": noise, "sample": x0, "v_prediction": scheduler.get_velocity(x0, noise, timesteps)}
    prediction = perfect[prediction_type]
    torch.testing.assert_close(to_x0(prediction, sample, timesteps, scheduler), x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(to_epsilon(prediction, sample, timesteps, scheduler), noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_alpha_bar_at_training_timesteps_is_the_table_whatever_the_scheduler(name):
    scheduler = make(name)
    timesteps = torch.tensor([0, 1, 199, 500, 999])
    torch.testing.assert_close(alpha_bar(scheduler, timesteps), scheduler.alphas_cumprod[timesteps])
    scheduler.set_timesteps(10)
    torch.testing.assert_close(
        alpha_bar(scheduler, timesteps), scheduler.alphas_cumprod[timesteps], rtol=1e-4, atol=1e-5
    )


def test_alpha_bar_keeps_the_shape_and_places_fractions_between_their_neighbours():
    scheduler = make("DDIMScheduler")
    assert alpha_bar(scheduler, 10).shape == () and alpha_bar(scheduler, torch.tensor([1, 2])).shape == (2,)
    low, middle, high = alpha_bar(scheduler, torch.tensor([400.0, 400.5, 401.0]))
    assert low > middle > high
    log_sigma = [((1 - value) / value).sqrt().log() for value in (low, middle, high)]
    torch.testing.assert_close(log_sigma[1], (log_sigma[0] + log_sigma[2]) / 2, rtol=1e-4, atol=1e-5)


def test_repeated_timesteps_have_the_level_of_the_running_step():
    scheduler = make("DPMSolverMultistepScheduler", use_karras_sigmas=True)
    scheduler.set_timesteps(60)
    assert len(set(scheduler.timesteps.tolist())) < 60
    latents = normal(0, 1, 4)
    for index, timestep in enumerate(scheduler.timesteps):
        latents = scheduler.step(latents, timestep, latents).prev_sample
        if index + 1 < 60:
            following = alpha_bar(scheduler, scheduler.timesteps[index + 1])
            torch.testing.assert_close(following, 1 / (scheduler.sigmas[index + 1] ** 2 + 1))


def test_half_precision_is_converted_in_float32_and_returned_as_half():
    scheduler = make("EulerDiscreteScheduler", "v_prediction")
    prediction, sample = normal(0, 2, 4, 5, 5).half(), normal(1, 2, 4, 5, 5).half()
    for convert in (to_x0, to_epsilon, from_x0, from_epsilon, add_noise):
        result = convert(prediction, sample, 700, scheduler)
        assert result.dtype == torch.float16
        assert torch.equal(result, convert(prediction.float(), sample.float(), 700, scheduler).half())
        assert convert(prediction.double(), sample.double(), 700, scheduler).dtype == torch.float64


def test_v_prediction_at_zero_terminal_snr_is_finite():
    scheduler = make("DDIMScheduler", "v_prediction", rescale_betas_zero_snr=True)
    assert alpha_bar(scheduler, 999) == 0
    prediction, sample = normal(0, 1, 4), normal(1, 1, 4)
    torch.testing.assert_close(to_x0(prediction, sample, 999, scheduler), -prediction)
    torch.testing.assert_close(to_epsilon(prediction, sample, 999, scheduler), sample)


def test_conversions_do_not_touch_the_scheduler():
    scheduler = make("EulerDiscreteScheduler")
    scheduler.set_timesteps(10)
    to_x0(normal(0, 1, 4), normal(1, 1, 4), scheduler.timesteps[3], scheduler)
    assert scheduler.step_index is None and not scheduler.is_scale_input_called


def test_what_cannot_be_converted_is_an_error():
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        to_x0(x, x, 1, diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="flow_prediction"):
        to_x0(x, x, 1, diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True))
    scheduler = make("DDIMScheduler")
    with pytest.raises(ValueError, match="one shape"):
        to_x0(x, x[:1], 1, scheduler)
    with pytest.raises(ValueError, match="one timestep or one per sample"):
        to_x0(x, x, torch.tensor([1, 2, 3]), scheduler)
