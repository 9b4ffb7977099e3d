"""The Fréchet distance against scipy and closed forms, and the moments against what they are at once."""

import numpy as np
import pytest
import scipy.linalg
import torch

from longvid.metrics.frechet import RunningMoments, frechet_distance


def moments(features, *, batch=1000):
    made = RunningMoments()
    for part in features.split(batch):
        made.update(part)
    return made


def sample(seed, number=60, width=5, *, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(number, width, generator=generator, dtype=torch.float64) @ mixing + mean


def by_scipy(left, right):
    left, right = left.numpy(), right.numpy()
    first, second = np.cov(left, rowvar=False), np.cov(right, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    difference = left.mean(0) - right.mean(0)
    return difference @ difference + np.trace(first + second - 2 * np.real(root))


@pytest.mark.parametrize(("seed", "width"), [(0, 2), (1, 5), (2, 12)])
def test_the_distance_is_that_of_scipys_matrix_root(seed, width):
    left, right = sample(seed, width=width), sample(seed + 50, width=width, mean=0.7)
    assert frechet_distance(moments(left), moments(right)) == pytest.approx(by_scipy(left, right), rel=1e-9)


def test_the_distance_of_shifted_copies_is_the_square_of_the_shift():
    features = sample(3)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0], dtype=torch.float64)
    assert frechet_distance(moments(features), moments(features + shift)) == pytest.approx(5.25)
    assert frechet_distance(moments(features), moments(features)) == pytest.approx(0, abs=1e-9)


def test_the_distance_of_scaled_copies_is_the_closed_form_of_commuting_covariances():
    features = sample(4)
    features = features - features.mean(0)
    expected = 4 * moments(features).covariance().trace()  # (3 - 1)^2 tr C
    assert frechet_distance(moments(features), moments(3 * features)) == pytest.approx(float(expected))


def test_fewer_vectors_than_features_still_give_a_real_number():
    left, right = sample(5, number=4, width=9), sample(6, number=3, width=9)
    distance = frechet_distance(moments(left), moments(right))
    assert distance == pytest.approx(frechet_distance(moments(right), moments(left)), rel=1e-6)
    assert distance > 0


def test_the_distance_grows_with_the_difference():
    features = sample(7)
    distances = [frechet_distance(moments(features), moments(features + shift)) for shift in (0.0, 0.5, 2.0)]
    assert distances[0] < distances[1] < distances[2]


def test_moments_of_batches_are_the_moments_of_all_even_far_from_zero():
    features = sample(8, number=57) + 1e6
    whole, parts = moments(features), moments(features, batch=10)
    assert torch.allclose(parts.mean, features.mean(0), rtol=0, atol=1e-8)
    assert torch.allclose(parts.covariance(), torch.cov(features.T), rtol=1e-9)
    assert torch.allclose(whole.covariance(), parts.covariance(), rtol=1e-9)
    first, second = moments(features[:20]), moments(features[20:])
    first.merge(second)
    assert first.count == 57
    assert torch.allclose(first.covariance(), whole.covariance(), rtol=1e-9)


def test_saved_moments_come_back_as_they_were(tmp_path):
    made = moments(sample(9))
    made.save(tmp_path / "real.safetensors")
    read = RunningMoments.load(tmp_path / "real.safetensors")
    assert read.count == made.count
    assert torch.equal(read.mean, made.mean) and torch.equal(read.scatter, made.scatter)


def test_what_are_no_moments_is_an_error(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a file of moments"):
        RunningMoments.load(tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match="finite features"):
        RunningMoments().update(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match="two feature vectors"):
        moments(torch.ones(1, 2)).covariance()
    with pytest.raises(ValueError, match="of one width"):
        frechet_distance(moments(sample(1, width=3)), moments(sample(1, width=4)))
