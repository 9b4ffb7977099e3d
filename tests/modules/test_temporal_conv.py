"""Convolutions over time in their 2-D form: the same numbers, the same weights, and back."""

import pytest
import torch
from torch import nn

from longvid.modules.temporal_conv import TemporalConv, flatten_temporal_convs, is_temporal


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_the_flat_form_gives_the_same_values_and_gradients(size, bias):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(4, 6, (size, 1, 1), padding=(size // 2, 0, 0), bias=bias)).double()
    video = torch.randn(2, 4, 7, 3, 5, dtype=torch.float64, requires_grad=True)
    expected = network(video)
    (grad,) = torch.autograd.grad(expected.square().sum(), video)
    weights = network[0].weight
    assert flatten_temporal_convs(network) == 1
    assert type(network[0]) is TemporalConv and network[0].weight is weights
    assert torch.allclose(network(video), expected, atol=1e-12)
    assert torch.allclose(torch.autograd.grad(network(video).square().sum(), video)[0], grad, atol=1e-10)
    assert flatten_temporal_convs(network, False) == 0
    assert torch.equal(network(video), expected)


def test_the_frames_of_a_strided_view_are_not_mixed_up():
    torch.manual_seed(0)
    network, video = nn.Sequential(nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))), torch.randn(2, 7, 4, 3, 5)
    expected = network(video.transpose(1, 2))
    flatten_temporal_convs(network)
    assert torch.allclose(network(video.transpose(1, 2)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 1, 1), "stride": (2, 1, 1)},
        {"kernel_size": (3, 1, 1), "dilation": (2, 1, 1)},
        {"kernel_size": (3, 1, 1), "padding": (1, 1, 1)},
        {"kernel_size": (3, 1, 1), "padding": "same"},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "padding_mode": "replicate"},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "groups": 2},
    ],
)
def test_other_convolutions_are_left_alone(options):
    conv = nn.Conv3d(4, 4, **options)
    assert not is_temporal(conv) and flatten_temporal_convs(nn.Sequential(conv)) == 0


def test_an_offloaded_layer_is_left_alone():
    network = nn.Sequential(nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0)))
    network[0]._hf_hook = object()
    assert flatten_temporal_convs(network) == 0
