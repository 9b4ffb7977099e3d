"""The aesthetic score: a head on normalised features, from files of the two kinds that LAION gave out."""

import pytest
import torch
import torch.nn.functional as F

from longvid.metrics import MissingWeights, make_metric
from longvid.metrics.aesthetic import load_head


class Encoder:
    """Features are the mean colour of the frame's two halves, six numbers."""

    name = "halves"

    def encode_images(self, frames):
        return torch.cat([half.mean((-2, -1)) for half in frames.chunk(2, dim=-1)], dim=1)


def linear_file(path):
    torch.save({"weight": torch.arange(6.0)[None], "bias": torch.tensor([2.0])}, path)
    return path


def improved_file(path, *, wrong=False):
    torch.manual_seed(0)
    sizes, weights = (6, 8, 5, 4, 3, 1), {}
    for place, (read, width) in zip((0, 2, 4, 6, 7), zip(sizes, sizes[1:], strict=False), strict=True):
        weights[f"layers.{place}.weight"], weights[f"layers.{place}.bias"] = (
            torch.randn(width, read),
            torch.randn(width),
        )
    if wrong:
        weights["layers.9.weight"] = torch.randn(1, 1)
    torch.save(weights, path)
    return path, weights


def measure(frames, **options):
    metric = make_metric("aesthetic", clip=Encoder(), **options)
    for frame in frames.split(2):
        metric.update(frame)
    return metric.compute()


def test_a_linear_head_is_the_dot_product_with_normalised_features(tmp_path):
    frames = torch.rand(5, 3, 4, 6)
    features = F.normalize(Encoder().encode_images(frames), dim=-1)
    expected = features @ torch.arange(6.0) + 2
    result = measure(frames, head=linear_file(tmp_path / "linear.pth"))
    assert result.curve == pytest.approx(expected.tolist(), rel=1e-5)
    assert result.value == pytest.approx(expected.mean().item(), rel=1e-5)


def test_the_improved_head_is_five_linear_maps_one_after_another(tmp_path):
    path, weights = improved_file(tmp_path / "improved.pth")
    frames = torch.rand(3, 3, 4, 6)
    hidden = F.normalize(Encoder().encode_images(frames), dim=-1)
    for place in (0, 2, 4, 6, 7):
        hidden = hidden @ weights[f"layers.{place}.weight"].T + weights[f"layers.{place}.bias"]
    assert measure(frames, head=path).curve == pytest.approx(hidden[:, 0].tolist(), rel=1e-4)


def test_brighter_right_halves_score_higher_under_a_head_that_likes_them(tmp_path):
    frames = torch.full((2, 3, 4, 6), 0.2)
    brighter = frames.clone()
    brighter[..., 3:] = 0.9
    head = linear_file(tmp_path / "linear.pth")
    assert measure(brighter, head=head).value > measure(frames, head=head).value


def test_a_missing_or_other_file_is_named(tmp_path):
    with pytest.raises(MissingWeights, match=r"sa_0_4_vit_l_14_linear.pth.*aesthetic.head=PATH"):
        make_metric("aesthetic")
    with pytest.raises(MissingWeights, match="nothing at"):
        make_metric("aesthetic", head=tmp_path / "no.pth")
    torch.save({"something": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="it holds something"):
        load_head(tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"layers.9|9.weight"):
        load_head(improved_file(tmp_path / "wrong.pth", wrong=True)[0])


def test_a_head_of_another_width_than_the_encoder_is_an_error(tmp_path):
    metric = make_metric("aesthetic", head=torch.nn.Linear(7, 1), clip=Encoder())
    with pytest.raises(ValueError, match="reads 7 features, and halves gives 6"):
        metric.update(torch.rand(1, 3, 4, 4))
