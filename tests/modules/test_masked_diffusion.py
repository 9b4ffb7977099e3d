"""Laws of masked diffusion: Eq. 7 and its limits, the three static noises, what may be missing."""

from dataclasses import replace

import pytest
import torch
from networks import MASK, build, draw, shake

from longvid.modules import MaskedDiffusionModel, static_noise


def model_with_mask(bias: float | None = None, **options) -> MaskedDiffusionModel:
    return MaskedDiffusionModel(shake(build()), build(**MASK, mask_bias_init=bias), **options)


def test_the_three_static_noises_in_closed_form():
    clean, noise, alpha_bar = draw(2, 8, 4, 4), draw(2, 8, 4, 4, seed=3), torch.tensor([0.9, 0.2])
    signal, level = alpha_bar.sqrt().reshape(2, 1, 1, 1), (1 - alpha_bar).sqrt().reshape(2, 1, 1, 1)
    noisy = signal * clean + level * noise
    expected = {
        "ref_minus_noisy": (1 - signal) * clean - level * noise,
        "noisy_minus_ref": level * noise - (1 - signal) * clean,
        "scaled": noise,
    }
    for kind, value in expected.items():
        torch.testing.assert_close(static_noise(noisy, clean, alpha_bar, kind), value, atol=1e-5, rtol=1e-5)


def test_scaled_static_noise_leads_any_sample_to_the_reference():
    sample, reference, alpha_bar = draw(1, 8, 4, 4), draw(1, 8, 4, 4, seed=3), 0.3
    noise = static_noise(sample, reference, alpha_bar, "scaled")
    x0 = (sample - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5
    torch.testing.assert_close(x0, reference)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ref_minus_noisy", "noisy_minus_ref", "scaled"])
def test_the_noise_is_the_static_noise_where_the_mask_is_one_and_the_dynamic_where_it_is_zero(kind, batch, conditions):
    sample, timestep, text = batch()
    given = {"conditions": conditions(), "alpha_bar": torch.tensor(0.4)}
    copying = model_with_mask(100.0, static_noise=kind)(sample, timestep, text, **given)
    static = static_noise(sample, conditions().static_reference, given["alpha_bar"], kind)
    assert torch.equal(copying.noise, static) and torch.equal(copying.static, static)
    inventing = model_with_mask(-100.0, static_noise=kind, mask_activation="hard_sigmoid")
    dynamic = inventing.unet(sample, timestep, text, **conditions().inputs(None)).sample
    assert torch.equal(inventing(sample, timestep, text, **given).noise, dynamic)


@torch.no_grad()
@pytest.mark.parametrize("mask_activation", ["sigmoid", "hard_sigmoid", "clamp"])
def test_one_mask_between_zero_and_one_weighs_all_channels(mask_activation, batch, conditions):
    output = model_with_mask(mask_activation=mask_activation)(*batch(), conditions=conditions())
    assert output.mask.shape == (2, 1, 8, 8)
    assert output.mask.min() >= 0 and output.mask.max() <= 1
    torch.testing.assert_close(
        output.noise, torch.lerp(output.dynamic, output.static, output.mask.expand(-1, 8, -1, -1)), atol=1e-6, rtol=1e-5
    )


@torch.no_grad()
def test_a_mask_bias_of_minus_three_starts_with_little_copying(batch, conditions):
    mask = model_with_mask(-3.0)(*batch(), conditions=conditions()).mask
    assert 0.03 < mask.mean() < 0.08


@torch.no_grad()
def test_a_closed_gate_forbids_copying_in_its_row_only(batch, conditions):
    model = model_with_mask()
    free = model(*batch(), conditions=conditions())
    gated = model(*batch(), conditions=replace(conditions(), mask_gate=torch.tensor([1.0, 0.0])))
    assert torch.equal(gated.noise[0], free.noise[0])
    assert torch.equal(gated.noise[1], free.dynamic[1])


@torch.no_grad()
def test_without_a_mask_network_the_noise_is_the_dynamic_noise(batch, conditions):
    model = MaskedDiffusionModel(shake(build()))
    output = model(*batch(), conditions=model.cache(conditions()))
    assert torch.equal(output.noise, model.unet(*batch(), **conditions().inputs(None)).sample)
    assert output.mask is None and output.static is None


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_a_network_of_velocity_gives_the_noise_that_the_velocity_implies(batch, conditions, masked):
    networks = (shake(build()), shake(build(**MASK)) if masked else None)
    options = {"conditions": conditions(), "alpha_bar": torch.tensor([0.3, 0.8])}
    velocity = MaskedDiffusionModel(*networks)(*batch(), **options).dynamic
    output = MaskedDiffusionModel(*networks, prediction_type="v_prediction")(*batch(), **options)
    signal, level = (power.sqrt().reshape(2, 1, 1, 1) for power in (options["alpha_bar"], 1 - options["alpha_bar"]))
    torch.testing.assert_close(output.dynamic, signal * velocity + level * batch()[0])
    if masked:
        mixed = output.mask * output.static + (1 - output.mask) * output.dynamic
        torch.testing.assert_close(output.noise, mixed)


def test_the_loss_reaches_both_networks_and_falls(batch, conditions):
    model = MaskedDiffusionModel(build(), build(**MASK, mask_bias_init=-3.0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    target, losses = draw(2, 8, 8, 8, seed=6), []
    for _ in range(8):
        output = model(*batch(), conditions=conditions())
        loss = (output.noise - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            unreached = [name for name, parameter in model.named_parameters() if parameter.grad is None]
            assert not unreached
        optimizer.step()
        losses.append(loss.item())
        assert output.mask.min() > 0 and output.mask.max() < 1
    assert losses[-1] < losses[0]


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_without_a_graph_break(batch, conditions):
    model = model_with_mask(static_noise="scaled")
    given = {"conditions": model.cache(conditions()), "alpha_bar": torch.tensor(0.4)}
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch(), **given).noise, model(*batch(), **given).noise)


def test_bad_options_are_named(batch, conditions):
    with pytest.raises(ValueError, match="static_noise must be one of ref_minus_noisy, .*; got 'other'"):
        MaskedDiffusionModel(build(), static_noise="other")
    with pytest.raises(ValueError, match="static_noise must be one of"):
        static_noise(torch.zeros(1), torch.zeros(1), 0.5, "other")
    with pytest.raises(ValueError, match="mask_activation must be one of sigmoid, .*; got 'softmax'"):
        MaskedDiffusionModel(build(), mask_activation="softmax")
    with pytest.raises(ValueError, match="prediction_type must be one of epsilon, v_prediction; got 'sample'"):
        MaskedDiffusionModel(build(), prediction_type="sample")
    with pytest.raises(ValueError, match="prediction_type='v_prediction' needs alpha_bar"):
        MaskedDiffusionModel(build(), prediction_type="v_prediction")(*batch(), conditions=conditions())
    with pytest.raises(ValueError, match="mask_network must have 1 output channel; got 8"):
        MaskedDiffusionModel(build(), build())
    with pytest.raises(ValueError, match="needs alpha_bar"):
        model_with_mask(static_noise="scaled")(*batch(), conditions=conditions())
