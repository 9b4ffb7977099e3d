"""The test of Jarque and Bera against scipy, correlated noise against its definition, and the share in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from longvid.reproduce.noise_statistics import closed_form_share, frame_noise, jarque_bera


def correlations(kind, alpha, num_frames):
    """What frame_noise says of two frames."""
    a = alpha / math.sqrt(1 + alpha**2)
    distance = (torch.arange(num_frames)[:, None] - torch.arange(num_frames)).abs().double()
    rho = {"independent": 0.0 * distance, "mixed": 0.0 * distance + a * a, "shared": 0.0 * distance + 1}
    return torch.where(distance == 0, 1.0, rho[kind] if kind in rho else a**distance)


@pytest.mark.parametrize("shape", [(12,), (3, 400), (2, 3, 50)])
def test_the_statistic_and_its_p_value_are_those_of_scipy(shape):
    samples = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() ** 3
    expected = stats.jarque_bera(samples.numpy(), axis=-1)
    statistic, p = jarque_bera(samples)
    torch.testing.assert_close(statistic, torch.as_tensor(expected.statistic).reshape(statistic.shape))
    torch.testing.assert_close(p, torch.as_tensor(expected.pvalue).reshape(p.shape))


def test_the_statistic_does_not_know_mean_and_scale_and_one_value_is_no_sample():
    samples = torch.rand(500, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(jarque_bera(samples), jarque_bera(3 * samples - 7))
    with pytest.raises(ValueError, match=r"n of at least 2; got shape \(4, 1\)"):
        jarque_bera(torch.zeros(4, 1))


@pytest.mark.parametrize(
    ("kind", "alpha"), [("independent", 0), ("mixed", 1), ("mixed", 2), ("progressive", 2), ("shared", 0)]
)
def test_frames_of_noise_have_variance_one_and_the_correlations_of_their_kind(kind, alpha):
    noise = frame_noise(kind, (4, 8, 6, 32, 32), torch.Generator().manual_seed(0), alpha=alpha)
    frames = noise.transpose(0, 2).flatten(1).double()
    torch.testing.assert_close(frames @ frames.T / frames.shape[1], correlations(kind, alpha, 6), atol=0.03, rtol=0)


def test_all_kinds_begin_with_the_same_independent_draws():
    def drawn(kind, alpha=0.0):
        return frame_noise(kind, (1, 2, 3, 4, 4), torch.Generator().manual_seed(5), alpha=alpha)

    own, common = drawn("independent"), drawn("shared")
    torch.testing.assert_close(drawn("mixed", 1.0), (own + common) / math.sqrt(2))
    torch.testing.assert_close(drawn("mixed"), own)
    torch.testing.assert_close(drawn("progressive"), own)
    for words, message in ((("pink", (1, 1, 1, 1, 1)), "'pink'"), (("mixed", (1, 1, 1)), r"\(1, 1, 1\)")):
        with pytest.raises(ValueError, match=message):
            frame_noise(*words, torch.Generator())


def test_independent_frames_pass_as_often_as_the_level_says_and_equal_ones_by_an_exponential():
    assert closed_form_share(torch.eye(24)) == pytest.approx(0.95, abs=1e-6)
    assert closed_form_share(torch.ones(24, 24)) == pytest.approx(1 - 0.05 ** (1 / 24), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "alpha", "percent"),
    [("mixed", 1, 61.8), ("mixed", 2, 22.9), ("progressive", 1, 80.6), ("progressive", 2, 47.2), ("shared", 0, 11.7)],
)
def test_the_shares_that_the_page_names_are_those_of_24_frames(kind, alpha, percent):
    assert 100 * closed_form_share(correlations(kind, alpha, 24)) == pytest.approx(percent, abs=0.05)


def test_drawn_noise_passes_as_often_as_the_closed_form_says():
    noise = frame_noise("mixed", (500, 3, 24, 8, 8), torch.Generator().manual_seed(0), alpha=1.0)
    share = (jarque_bera(noise.flatten(1))[1] > 0.05).double().mean().item()
    assert share == pytest.approx(closed_form_share(correlations("mixed", 1, 24)), abs=0.07)
