"""The paper's networks have the paper's sizes and costs, counted on the meta device."""

import pytest
import torch

from longvid.modules import PAPER_MASK_NETWORK, PAPER_UNET, AnchoredUNet, count_multiply_adds, count_parameters


def on_meta(config) -> AnchoredUNet:
    with torch.device("meta"):
        return AnchoredUNet(**config)


def multiply_adds(network: AnchoredUNet, size: int) -> int:
    with torch.device("meta"):
        sample, text = torch.empty(1, 4, size, size), torch.empty(1, 77, 1024)
        level = torch.zeros(1, dtype=torch.long)
        conditions = {"references": torch.cat([sample, sample], dim=1), "anchor": sample, "noise_level": level}
        return count_multiply_adds(network, sample, level, text, **conditions)


@pytest.fixture(scope="module")
def networks() -> tuple[AnchoredUNet, AnchoredUNet]:
    return on_meta(PAPER_UNET), on_meta(PAPER_MASK_NETWORK)


def test_the_networks_have_the_parameters_of_table_2(networks):
    assert [count_parameters(network) for network in networks] == [1_167_668_804, 51_178_113]
    assert [count_parameters(network.adapter) for network in networks] == [76_839_360, 3_079_872]


def test_one_evaluation_at_40_x_40_costs_what_table_3_says_for_320_pixels(networks):
    dynamic, mask = (multiply_adds(network, 40) / 1e9 for network in networks)
    assert dynamic == pytest.approx(189.771, abs=5e-4)
    assert mask == pytest.approx(7.958, abs=5e-4)
    assert dynamic + mask == pytest.approx(197.70, rel=3e-4)


@pytest.mark.parametrize(("pixels", "paper"), [(448, 385.18), (768, 1127.31)])
def test_larger_frames_cost_what_table_3_says(networks, pixels, paper):
    total = sum(multiply_adds(network, pixels // 8) for network in networks) / 1e9
    assert total == pytest.approx(paper, rel=3e-4)


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({"anchor_injection": "none"}, 944.030),
        ({"anchor_patch": 1}, 1167.369),
        ({"level_embedding": "mlp"}, 1168.439),
        ({"level_embedding": "shared"}, 1166.389),
        ({"level_embedding": "shared", "anchor_patch": 4}, 1167.587),
    ],
)
def test_the_other_readings_of_the_paper_have_their_counts(options, millions):
    assert count_parameters(on_meta(PAPER_UNET | options)) / 1e6 == pytest.approx(millions, abs=6e-4)


def test_the_counter_follows_the_rules_of_thop():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 5)
    )
    expected = 4 * 16 * 27 + 4 * 4 + 16 * 5  # convolution, pooling, linear; biases are free
    assert count_multiply_adds(layers, torch.zeros(1, 3, 4, 4)) == expected
    assert count_multiply_adds(torch.nn.LayerNorm(8), torch.zeros(2, 8)) == 4 * 16
