"""LPIPS: the arithmetic against numpy, the networks against torchvision, and the direction of the number."""

import numpy as np
import pytest
import torch
from torch import nn

from longvid.metrics import MissingWeights, make_metric
from longvid.metrics.perceptual import (
    ALEX_TAPS,
    VGG_TAPS,
    PerceptualDistance,
    alexnet_features,
    load_perceptual,
    vgg16_features,
)

SMALL_VGG = ((4, 4), (6, 6), (8, 8, 8), (8, 8, 8), (8, 8, 8))


def network(kind="alex", seed=0):
    torch.manual_seed(seed)
    if kind == "alex":
        made = PerceptualDistance(alexnet_features((8, 12, 16, 12, 12)), ALEX_TAPS, name="small AlexNet")
    else:
        made = PerceptualDistance(vgg16_features(SMALL_VGG), VGG_TAPS, name="small VGG-16")
    for parameter in made.weights:
        parameter.data = torch.rand_like(parameter)
    return made.eval().requires_grad_(False)


def by_numpy(network, left, right):
    """LPIPS of two pictures (3, H, W) as the paper writes it, without torch's help after the features."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])

    def layers(picture):
        values = ((2 * picture.numpy().astype(np.float64) - 1).transpose(1, 2, 0) - shift) / scale
        hidden = torch.from_numpy(values.transpose(2, 0, 1)).float()[None]
        for place, layer in enumerate(network.features):
            hidden = layer(hidden)
            if place in network.taps:
                yield hidden[0].numpy().astype(np.float64)

    total = 0.0
    for a, b, weight in zip(layers(left), layers(right), network.weights, strict=True):
        _, height, width = a.shape
        for row in range(height):
            for column in range(width):
                one, two = a[:, row, column], b[:, row, column]
                one, two = one / (np.linalg.norm(one) + 1e-10), two / (np.linalg.norm(two) + 1e-10)
                total += np.dot(weight.numpy(), (one - two) ** 2) / (height * width)
    return total


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_the_distance_is_the_papers_formula(kind):
    made = network(kind)
    left, right = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    assert float(made(left[None], right[None])) == pytest.approx(by_numpy(made, left, right), rel=1e-4)


@pytest.mark.parametrize(("kind", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_side_is_the_smallest_that_the_layers_take(kind, smallest):
    made = network(kind)
    assert made.smallest_side() == smallest
    made.read(torch.rand(1, 3, smallest, smallest))
    with pytest.raises(RuntimeError):
        made.read(torch.rand(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize(("kind", "name"), [("alex", "alexnet"), ("vgg", "vgg16")])
def test_the_layers_stand_where_torchvision_has_them(kind, name):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = getattr(models, name)(weights=None).features
        ours = alexnet_features() if kind == "alex" else vgg16_features()
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    for our, their in zip(ours, theirs, strict=False):
        assert type(our) is type(their)
        if isinstance(our, (nn.Conv2d, nn.MaxPool2d)):
            for field in ("kernel_size", "stride", "padding"):
                pair = [v if isinstance(v, int) else v[0] for v in (getattr(our, field), getattr(their, field))]
                assert pair[0] == pair[1]


def measure(name, frames, *, pieces=1000, made=None):
    metric = make_metric(name, network=made or network())
    for piece in frames.split(pieces):
        metric.update(piece)
    return metric.compute()


def test_a_still_has_distance_zero_and_more_noise_gives_more():
    generator = torch.Generator().manual_seed(2)
    still = torch.rand(1, 3, 32, 32, generator=generator).expand(4, -1, -1, -1)
    noise = torch.rand(4, 3, 32, 32, generator=generator)
    for name in ("lpips", "lpips_previous"):
        values = [measure(name, still.lerp(noise, amount)).value for amount in (0.0, 0.1, 0.4)]
        assert values[0] == pytest.approx(0, abs=1e-9)
        assert values[0] < values[1] < values[2]


def test_drift_shows_against_the_first_frame_and_flicker_against_the_one_before():
    generator = torch.Generator().manual_seed(3)
    one, two = torch.rand(2, 1, 3, 32, 32, generator=generator)
    drift = torch.cat([one.lerp(two, amount) for amount in torch.linspace(0, 1, 7).tolist()])
    assert measure("lpips", drift).value > 1.5 * measure("lpips_previous", drift).value
    assert measure("lpips", drift).curve[-1] == max(measure("lpips", drift).curve)


def test_the_pieces_in_which_frames_come_change_nothing():
    frames = torch.rand(5, 3, 32, 32)
    for name in ("lpips", "lpips_previous"):
        assert measure(name, frames, pieces=2) == measure(name, frames)


def test_a_single_frame_has_no_distance_and_small_frames_are_an_error():
    assert measure("lpips", torch.rand(1, 3, 32, 32)).value is None
    with pytest.raises(ValueError, match="at least 31 pixels"):
        measure("lpips", torch.rand(2, 3, 16, 32))


def files(folder, *, lin_width=64):
    """Files as torchvision and the LPIPS authors write them, at full AlexNet size with few numbers that matter."""
    weights = {f"features.{key}": torch.zeros_like(value) for key, value in alexnet_features().state_dict().items()}
    torch.save(weights | {"classifier.1.bias": torch.zeros(2)}, folder / "alexnet.pth")
    widths = (lin_width, 192, 384, 256, 256)
    torch.save(
        {f"lin{place}.model.1.weight": torch.full((1, width, 1, 1), 0.5) for place, width in enumerate(widths)},
        folder / "alex.pth",
    )
    return folder / "alexnet.pth", folder / "alex.pth"


def test_the_two_files_are_read_as_their_authors_wrote_them(tmp_path):
    made = load_perceptual(*files(tmp_path), torch.device("cpu"))
    assert made.name == "AlexNet"
    assert [len(weight) for weight in made.weights] == [64, 192, 384, 256, 256]
    assert all((weight == 0.5).all() for weight in made.weights)


def test_a_missing_or_other_file_is_named(tmp_path):
    backbone, linear = files(tmp_path, lin_width=63)
    with pytest.raises(MissingWeights, match=r"alexnet-owt-7be5be79.pth.*lpips.backbone=PATH"):
        make_metric("lpips")
    with pytest.raises(MissingWeights, match=r"alex.pth.*lpips_previous.linear=PATH"):
        make_metric("lpips_previous", backbone=backbone)
    with pytest.raises(ValueError, match="neither torchvision's AlexNet nor its VGG-16"):
        make_metric("lpips", backbone=linear, linear=linear)
    with pytest.raises(ValueError, match="linear weights of LPIPS v0.1 for AlexNet"):
        make_metric("lpips", backbone=backbone, linear=linear)
