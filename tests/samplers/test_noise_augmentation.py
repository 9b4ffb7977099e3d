import pytest
import torch
from diffusers import DDIMScheduler

from longvid.samplers import DPMPP2SAncestralScheduler, augment

TABLE = DPMPP2SAncestralScheduler().alphas_cumprod


def coefficients(level, table=TABLE):
    signal = augment(torch.ones(1, 4), level, table, noise=torch.zeros(1, 4))
    spread = augment(torch.zeros(1, 4), level, table, noise=torch.ones(1, 4))
    return signal[0, 0].item(), spread[0, 0].item()


def test_level_200_has_the_coefficients_of_the_paper_and_level_0_is_nearly_clean():
    assert coefficients(200) == (pytest.approx(0.86815, abs=1e-5), pytest.approx(0.49629, abs=1e-5))
    signal, spread = coefficients(0)
    assert signal**2 == pytest.approx(0.99915, abs=1e-5)
    assert signal**2 + spread**2 == pytest.approx(1, abs=1e-6)


def test_one_level_per_sample_equals_samples_one_by_one():
    latents, noise = torch.randn(3, 4, 2, 5, 5), torch.randn(3, 4, 2, 5, 5)
    together = augment(latents, torch.tensor([0, 200, 550]), TABLE, noise=noise)
    for index, level in enumerate((0, 200, 550)):
        alone = augment(latents[index : index + 1], level, TABLE, noise=noise[index : index + 1])
        assert torch.equal(together[index : index + 1], alone)


def test_it_is_the_forward_process_of_a_variance_preserving_scheduler():
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, noise, levels = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([5, 700])
    torch.testing.assert_close(
        augment(latents, levels, scheduler, noise=noise), scheduler.add_noise(latents, noise, levels)
    )


def test_the_noise_comes_from_the_generator_alone_and_one_generator_per_sample_makes_samples_independent():
    def generator(seed):
        return torch.Generator().manual_seed(seed)

    latents = torch.randn(2, 4, 3, 3)
    assert torch.equal(
        augment(latents, 200, TABLE, generator=generator(1)), augment(latents, 200, TABLE, generator=generator(1))
    )
    both = augment(latents, 200, TABLE, generator=[generator(1), generator(2)])
    assert torch.equal(both[1:], augment(latents[1:], 200, TABLE, generator=generator(2)))


def test_the_dtype_of_the_latents_is_kept():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert augment(torch.ones(1, 4, dtype=dtype), 200, TABLE).dtype == dtype


@pytest.mark.parametrize("level", [-1, 1000, torch.tensor([0, 1000]), torch.tensor([1, 2, 3]), torch.tensor(0.5)])
def test_a_level_that_does_not_fit_is_an_error(level):
    with pytest.raises(ValueError, match="level"):
        augment(torch.ones(2, 4), level, TABLE)


def test_noise_or_generators_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="noise of shape"):
        augment(torch.ones(2, 4), 200, TABLE, noise=torch.ones(1, 4))
    with pytest.raises(ValueError, match="one generator per sample"):
        augment(torch.ones(2, 4), 200, TABLE, generator=[torch.Generator()] * 3)
    with pytest.raises(ValueError, match="table of alpha bar"):
        augment(torch.ones(2, 4), 200, "scaled_linear")
