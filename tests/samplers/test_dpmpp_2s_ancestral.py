import json
import math
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longvid.samplers import DPMPP2SAncestralScheduler, add_noise

FIXTURES = Path(__file__).parents[1] / "fixtures" / "art_v"
TENSORS = load_file(FIXTURES / "dpmpp2sa.safetensors")
CASES = json.loads((FIXTURES / "dpmpp2sa.json").read_text())["cases"]


def posterior(x, sigma, mu, s2):
    """The exact clean estimate for data ~ N(mu, s2)."""
    return (s2 * x + sigma**2 * mu) / (s2 + sigma**2)


def predict(scheduler, model_input, sigma, mu, s2):
    """What a perfect network answers, in the scheduler's prediction type."""
    x = model_input * math.sqrt(sigma**2 + 1)
    x0 = posterior(x, sigma, mu, s2)
    if scheduler.config.prediction_type == "sample":
        return x0
    epsilon = (x - x0) / sigma
    return epsilon if scheduler.config.prediction_type == "epsilon" else (epsilon - sigma * x0) / (sigma**2 + 1) ** 0.5


def run(scheduler, x, mu, s2, noise=None, generator=None, first=0):
    """Drive the usual loop for eta <= 1; return the sample after every step."""
    samples, step = [], 0
    for index, timestep in enumerate(scheduler.timesteps[first:], start=first):
        model_input = scheduler.scale_model_input(x, timestep)
        prediction = predict(scheduler, model_input, float(scheduler.sigmas[index]), mu, s2)
        extra = None if noise is None else noise[min(step, len(noise) - 1)].to(x.dtype)
        x = scheduler.step(prediction, timestep, x, generator=generator, noise=extra).prev_sample
        if index % 2 == 0 and index + 1 < len(scheduler.timesteps):
            continue
        samples.append(x)
        step += 1
    return samples


def reference(denoise, x, sigmas, noise, eta, s_noise):
    """The sampler as k-diffusion writes it, over `denoise(x, sigma)`; also counts evaluations."""
    count = 0
    for i in range(len(sigmas) - 1):
        a, b = sigmas[i], sigmas[i + 1]
        up = min(b, eta * (b**2 * (a**2 - b**2) / a**2) ** 0.5) if eta else 0.0
        down = (b**2 - up**2) ** 0.5
        denoised, count = denoise(x, a), count + 1
        if down == 0:
            x = x + (x - denoised) / a * (down - a)
        else:
            t, t_next = -math.log(a), -math.log(down)
            h = t_next - t
            s = t + h / 2
            x_2 = (math.exp(-s) / math.exp(-t)) * x - math.expm1(-h / 2) * denoised
            denoised_2, count = denoise(x_2, math.exp(-s)), count + 1
            x = (math.exp(-t_next) / math.exp(-t)) * x - math.expm1(-h) * denoised_2
        if b > 0:
            x = x + noise[i] * s_noise * up
    return x, count


def fixture(name):
    values = {key.removeprefix(f"{name}."): value for key, value in TENSORS.items() if key.startswith(f"{name}.")}
    case = CASES[name]
    scheduler = DPMPP2SAncestralScheduler(eta=case["eta"], s_noise=case["s_noise"])
    scheduler.set_timesteps(case["num_inference_steps"])
    return case, values, scheduler


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_every_sample_equals_k_diffusion(name, dtype, tolerance):
    case, values, scheduler = fixture(name)
    x = values["x_init"].to(dtype)
    samples = run(scheduler, x, values["mu"].to(dtype), case["s2"], noise=values["noise"])
    assert samples[0].dtype == dtype
    assert (torch.stack(samples).double() - values["x"]).abs().max() < tolerance


@pytest.mark.parametrize("name", CASES)
def test_evaluations_happen_where_k_diffusion_has_them(name):
    case, values, scheduler = fixture(name)
    assert len(scheduler.timesteps) == case["model_evaluations"] == 2 * case["num_inference_steps"] - 1
    assert scheduler.timesteps[::2].tolist() == case["timesteps"]
    assert torch.allclose(scheduler.sigmas[:-1], values["sigma_eval"], rtol=1e-12, atol=0)
    x, noise = values["x_init"], values["noise"]
    for index, timestep in enumerate(scheduler.timesteps):
        assert (x - values["x_eval"][index]).abs().max() < 1e-10
        model_input = scheduler.scale_model_input(x, timestep)
        prediction = predict(scheduler, model_input, float(scheduler.sigmas[index]), values["mu"], case["s2"])
        output = scheduler.step(prediction, timestep, x, noise=noise[index // 2])
        assert (output.pred_original_sample - values["denoised"][index]).abs().max() < 1e-10
        x = output.prev_sample


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_every_prediction_type_takes_the_same_path(prediction_type):
    case, values, scheduler = fixture("n7_eta05")
    scheduler = DPMPP2SAncestralScheduler.from_config(scheduler.config, prediction_type=prediction_type)
    scheduler.set_timesteps(7)
    samples = run(scheduler, values["x_init"], values["mu"], case["s2"], noise=values["noise"])
    assert (torch.stack(samples) - values["x"]).abs().max() < 1e-10


@pytest.mark.parametrize("eta", [1.05, 1.2, 2.0, 3.0])
def test_eta_above_one_takes_euler_steps_where_all_noise_is_fresh(eta):
    scheduler = DPMPP2SAncestralScheduler(eta=eta)
    scheduler.set_timesteps(8)
    generator = torch.Generator().manual_seed(0)
    x, mu = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64, generator=generator) * 14, torch.tensor(0.4)
    noise = torch.randn(8, *x.shape, dtype=torch.float64, generator=generator)
    nodes = [*scheduler._sigma_of(scheduler._space(8)).tolist(), 0.0]
    expected, count = reference(lambda x, sigma: posterior(x, sigma, mu, 0.3), x, nodes, noise, eta, 1.0)
    assert count == len(scheduler.timesteps)
    assert (count < 15) == (eta > 1.1)
    step = 0
    for index, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(x, timestep)
        prediction = predict(scheduler, model_input, float(scheduler.sigmas[index]), mu, 0.3)
        ends = scheduler._plan[index].is_last_of_step
        x = scheduler.step(prediction, timestep, x, noise=noise[step]).prev_sample
        step += ends
    assert (x - expected).abs().max() < 1e-10


def test_snapping_shows_the_network_the_nearest_training_level():
    scheduler = DPMPP2SAncestralScheduler(sigma_snap=True)
    scheduler.set_timesteps(9)
    table = ((1 - scheduler.alphas_cumprod.double()) / scheduler.alphas_cumprod.double()).sqrt()
    assert torch.equal(scheduler.timesteps, scheduler.timesteps.round())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=generator) * 14
    noise = torch.randn(9, *x.shape, dtype=torch.float64, generator=generator)

    def network(model_input, timestep):
        return torch.tanh(model_input + timestep / 1000)

    def denoise(x, sigma):
        index = int((table - sigma).abs().argmin())
        return x - table[index] * network(x / (table[index] ** 2 + 1).sqrt(), index)

    nodes = [*scheduler._sigma_of(scheduler._space(9)).tolist(), 0.0]
    expected, _ = reference(denoise, x, nodes, noise, 1.0, 1.0)
    for index, timestep in enumerate(scheduler.timesteps):
        prediction = network(scheduler.scale_model_input(x, timestep), float(timestep))
        x = scheduler.step(prediction, timestep, x, noise=noise[index // 2]).prev_sample
    assert (x - expected).abs().max() < 1e-4  # the float32 table of this test


def test_the_ancestral_sampler_ends_in_the_distribution_of_the_data():
    mu, s2 = 0.7, 0.3
    generator = torch.Generator().manual_seed(0)
    errors = []
    for steps in (25, 200):
        scheduler = DPMPP2SAncestralScheduler()
        scheduler.set_timesteps(steps)
        x = torch.randn(40_000, dtype=torch.float64, generator=generator) * scheduler.init_noise_sigma
        x = run(scheduler, x, mu, s2, generator=generator)[-1]
        assert abs(x.mean().item() - mu) < 0.02
        errors.append(abs(x.var().item() - s2))
    assert errors[1] < 0.012 < 0.03 < errors[0] < 0.05  # what is left is the last step, D(x, sigma) instead of a draw


def test_the_deterministic_sampler_is_of_second_order():
    mu, s2, errors = 0.7, 0.3, []
    for steps in (20, 40, 80):
        scheduler = DPMPP2SAncestralScheduler(eta=0.0)
        scheduler.set_timesteps(steps)
        nodes = scheduler.sigmas[:-1:2]
        x = torch.linspace(-20, 20, 9, dtype=torch.float64)
        exact = mu + (x - mu) * ((s2 + nodes[steps // 2] ** 2) / (s2 + nodes[0] ** 2)).sqrt()
        errors.append((run(scheduler, x, mu, s2)[steps // 2 - 1] - exact).abs().max().item())
    assert errors[0] / errors[1] > 3.2 and errors[1] / errors[2] > 3.2


def test_the_step_draws_its_noise_from_the_generator_alone():
    scheduler = DPMPP2SAncestralScheduler()

    def sample(generator, batch=slice(None)):
        scheduler.set_timesteps(4)
        x = torch.linspace(-14, 14, 24).reshape(2, 3, 4)[batch]
        return run(scheduler, x, 0.2, 0.3, generator=generator)[-1]

    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    assert torch.equal(sample(generators(1)[0]), sample(generators(1)[0]))
    both = sample(generators(1, 2))
    assert torch.equal(both[:1], sample(generators(1)[0], slice(0, 1)))
    assert torch.equal(both[1:], sample(generators(2)[0], slice(1, 2)))
    with pytest.raises(ValueError, match="one generator per sample"):
        sample(generators(1, 2, 3))


def test_no_noise_is_drawn_for_eta_zero():
    scheduler = DPMPP2SAncestralScheduler(eta=0.0)
    scheduler.set_timesteps(4)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    run(scheduler, torch.ones(1, 4), 0.2, 0.3, generator=generator)
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_half_precision_near_the_float32_result(dtype):
    case, values, scheduler = fixture("n50_eta1")
    x = run(scheduler, values["x_init"].to(dtype), values["mu"].float(), case["s2"], noise=values["noise"].float())[-1]
    assert x.dtype == dtype
    assert (x.double() - values["x"][-1]).abs().max() < 0.05


@pytest.mark.parametrize("steps", [7, 30, 50])
@pytest.mark.parametrize(
    "options",
    [{"timestep_spacing": "linspace"}, {"timestep_spacing": "leading", "steps_offset": 1},
     {"timestep_spacing": "trailing", "truncate_timesteps": False}],
)  # fmt: skip
def test_the_other_spacings_are_those_of_diffusers(steps, options):
    ours = DPMPP2SAncestralScheduler(**options)
    options = {key: value for key, value in options.items() if key != "truncate_timesteps"}
    theirs = diffusers.EulerDiscreteScheduler.from_config(ours.config, **options)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    assert torch.allclose(ours.timesteps[::2], theirs.timesteps, atol=1e-4, rtol=0)


def test_the_default_spacing_truncates_and_is_trailing_for_50_steps():
    scheduler = DPMPP2SAncestralScheduler()
    for steps in (1, 30, 50, 1000):
        scheduler.set_timesteps(steps)
        expected = np.linspace(999, 0, steps, endpoint=False).astype(int)
        assert scheduler.timesteps[::2].tolist() == expected.tolist()
        assert len(scheduler.timesteps) == 2 * steps - 1
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[::2].tolist() == list(range(999, 0, -20))
    assert scheduler.init_noise_sigma == pytest.approx(14.6488, abs=1e-4)
    assert scheduler.sigmas[-2].item() == pytest.approx(0.1345, abs=1e-4)


def test_image_to_image_continues_the_full_run_from_any_node():
    case, values, full = fixture("n10_eta0")
    samples = run(full, values["x_init"], values["mu"], case["s2"])
    for begin in ("by index", "by timestep"):
        scheduler = fixture("n10_eta0")[2]
        if begin == "by index":
            scheduler.set_begin_index(4 * scheduler.order)
            assert scheduler.begin_index == 8
        rest = run(scheduler, samples[3], values["mu"], case["s2"], first=8)
        assert torch.equal(rest[-1], samples[-1])
        assert scheduler.step_index == 19


def test_a_run_may_begin_between_two_nodes():
    scheduler = DPMPP2SAncestralScheduler(eta=0.0)
    scheduler.set_timesteps(50)
    mu, s2, sigmas = 0.7, 0.3, scheduler.sigmas
    x = torch.linspace(-10, 10, 9, dtype=torch.float64)
    exact = mu + (x - mu) * ((s2 + sigmas[20] ** 2) / (s2 + sigmas[19] ** 2)).sqrt()
    prediction = predict(scheduler, scheduler.scale_model_input(x, scheduler.timesteps[19]), float(sigmas[19]), mu, s2)
    moved = scheduler.step(prediction, scheduler.timesteps[19], x).prev_sample
    assert (moved - exact).abs().max() < 0.02 * (x - exact).abs().max()


def test_repeated_timesteps_are_counted_not_looked_up():
    scheduler = DPMPP2SAncestralScheduler(sigma_snap=True, num_train_timesteps=20)
    scheduler.set_timesteps(20)
    assert len(set(scheduler.timesteps.tolist())) < len(scheduler.timesteps)
    generator = torch.Generator().manual_seed(0)
    x = run(scheduler, torch.randn(1, 8, generator=generator), 0.2, 0.3, generator=generator)[-1]
    assert scheduler.step_index == 39 and x.isfinite().all()


def test_add_noise_is_the_forward_process_at_training_and_at_schedule_timesteps():
    scheduler = DPMPP2SAncestralScheduler()
    scheduler.set_timesteps(10)
    x0, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    for timesteps in (torch.tensor([3, 998]), torch.tensor([0, 999], dtype=torch.int32)):
        expected = x0 + table[timesteps.long()].reshape(2, 1, 1) * noise
        torch.testing.assert_close(scheduler.add_noise(x0, noise, timesteps), expected, rtol=1e-4, atol=1e-4)
    for index in (0, 5, 18):
        expected = x0 + scheduler.sigmas[index].float() * noise
        timestep = scheduler.timesteps[index]
        noisy = scheduler.add_noise(x0, noise, timestep)
        torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-4)
        scheduler.set_timesteps(10)
        model_input = scheduler.scale_model_input(noisy, timestep)
        torch.testing.assert_close(model_input, add_noise(x0, noise, timestep, scheduler), rtol=1e-4, atol=1e-4)
    assert scheduler.add_noise(x0.half(), noise.half(), torch.tensor([3, 998])).dtype == torch.float16


def test_the_output_is_a_named_pair_or_a_tuple():
    scheduler = DPMPP2SAncestralScheduler(eta=0.0)
    x, prediction = torch.ones(1, 4), torch.full((1, 4), 0.1)
    scheduler.set_timesteps(5)
    named = scheduler.step(prediction, scheduler.timesteps[0], x)
    scheduler.set_timesteps(5)
    prev_sample, x0 = scheduler.step(prediction, scheduler.timesteps[0], x, return_dict=False)
    assert torch.equal(named.prev_sample, prev_sample) and torch.equal(named[0], prev_sample)
    assert torch.equal(named.pred_original_sample, x0)


def test_the_config_survives_a_round_trip_through_a_folder(tmp_path):
    scheduler = DPMPP2SAncestralScheduler(eta=0.5, s_noise=1.003, sigma_snap=True, trained_betas=np.array([0.1, 0.3]))
    scheduler.save_pretrained(tmp_path)
    again = DPMPP2SAncestralScheduler.from_pretrained(tmp_path)
    expected = dict(scheduler.config) | {"trained_betas": [0.1, 0.3]}
    assert all(again.config[key] == value for key, value in expected.items() if not key.startswith("_"))
    assert torch.equal(again.betas, scheduler.betas) and len(again) == 2


OTHERS = [
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_configs_pass_to_and_from_other_diffusers_schedulers(name, tmp_path):
    other_class = getattr(diffusers, name)
    other = other_class(beta_start=0.001, beta_end=0.01, beta_schedule="linear", prediction_type="v_prediction")
    ours = DPMPP2SAncestralScheduler.from_config(other.config)
    assert (ours.config.beta_schedule, ours.config.prediction_type) == ("linear", "v_prediction")
    torch.testing.assert_close(ours.alphas_cumprod, other.alphas_cumprod, rtol=2e-5, atol=0)
    ours.save_pretrained(tmp_path)  # a config from disk passes on every value, not only those given
    back = other_class.from_config(DPMPP2SAncestralScheduler.from_pretrained(tmp_path).config)
    back.set_timesteps(5)
    torch.testing.assert_close(back.alphas_cumprod, other.alphas_cumprod)
    ours.set_timesteps(5)


def test_default_configs_of_other_schedulers_load():
    for name in [*OTHERS, "KDPM2AncestralDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]:
        scheduler = DPMPP2SAncestralScheduler.from_config(getattr(diffusers, name)().config)
        scheduler.set_timesteps(3)
        assert len(scheduler.timesteps) == 5


def test_compatible_schedulers_are_listed():
    scheduler = DPMPP2SAncestralScheduler()
    assert {diffusers.EulerDiscreteScheduler, diffusers.DDIMScheduler} <= set(scheduler.compatibles)


def test_zero_terminal_snr_betas_leave_no_signal_at_the_last_timestep():
    scheduler = DPMPP2SAncestralScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert scheduler.alphas_cumprod[-1] == 2**-24
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator) * scheduler.init_noise_sigma
    x = run(scheduler, x, 0.7, 0.3, generator=generator)[-1]
    assert abs(x.mean() - 0.7) < 0.03 and x.isfinite().all()


def test_the_schedule_is_there_before_set_timesteps_but_a_step_is_not():
    scheduler = DPMPP2SAncestralScheduler()
    assert scheduler.timesteps[0] == 999 and scheduler.init_noise_sigma == pytest.approx(14.6488, abs=1e-4)
    with pytest.raises(ValueError, match="set_timesteps"):
        scheduler.step(torch.zeros(1), 999, torch.zeros(1))


def test_wrong_use_says_what_was_expected():
    for options in ({"prediction_type": "flow"}, {"timestep_spacing": "even"}, {"beta_schedule": "cos"}, {"eta": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}.* must be"):
            DPMPP2SAncestralScheduler(**options)
    scheduler = DPMPP2SAncestralScheduler()
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=r"in \[1, 1000\]"):
            scheduler.set_timesteps(steps)
    scheduler.set_timesteps(1)
    with pytest.raises(ValueError, match="model_output of shape"):
        scheduler.step(torch.zeros(1, 2), 999, torch.zeros(1, 3))
    scheduler.step(torch.zeros(1, 2), 999, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="start anew"):
        scheduler.step(torch.zeros(1, 2), 999, torch.zeros(1, 2))
    scheduler.set_timesteps(2)
    scheduler.step(torch.zeros(1, 2), 999, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="noise of shape"):
        scheduler.step(torch.zeros(1, 2), 999, torch.zeros(1, 2), noise=torch.zeros(2))
