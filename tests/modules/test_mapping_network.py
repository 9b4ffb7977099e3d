import pytest
import torch

import tiny
from longvid import MappingNetwork
from longvid.modules import HARIVO_MAPPING_NETWORK, count_parameters

KINDS = [{}, {"conv": "3d"}, {"hidden_channels": 8}, {"num_layers": 2, "conv": "3d", "hidden_channels": 8}]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**changes):
    torch.manual_seed(0)
    return MappingNetwork(**{"in_channels": 4, "num_heads": 2, "head_dim": 4, **changes})


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_network_is_the_identity_bit_for_bit(options, dtype):
    sample = noise(2, 4, 5, 3, 2).to(dtype)
    assert torch.equal(network(**options).to(dtype)(sample), sample)


@pytest.mark.parametrize("options", KINDS)
def test_training_reaches_every_weight_after_the_first_step(options):
    """At first only the layers that are zero get a gradient; once they have moved, all others do."""
    mapping, sample = network(**options), noise(2, 4, 5, 3, 3)
    (mapping(sample) - 1).square().sum().backward()
    assert any(p.grad.any() for p in mapping.parameters() if not p.any())
    tiny.trained(mapping).zero_grad()
    (mapping(sample) - 1).square().sum().backward()
    assert all(p.grad.any() for p in mapping.parameters())


def test_pixels_do_not_see_each_other_with_temporal_convolutions_and_do_with_3d_ones():
    sample = noise(1, 4, 6, 3, 4)
    order = torch.tensor([2, 0, 3, 1])
    for conv, commutes in (("temporal", True), ("3d", False)):
        mapping = tiny.trained(network(conv=conv))
        with torch.no_grad():
            permuted, mapped = mapping(sample[..., order]), mapping(sample)[..., order]
        assert torch.allclose(permuted, mapped, atol=1e-5) == commutes


def test_every_frame_sees_every_other_and_any_number_of_frames_fits():
    mapping = tiny.trained(network())
    for num_frames in (1, 2, 33):
        sample = noise(1, 4, num_frames, 1, 1).requires_grad_()
        mapping(sample)[:, :, 0].sum().backward()
        assert sample.grad.abs().amax((0, 1, 3, 4)).min() > 0


def test_one_layer_is_the_formula_of_its_docstring():
    mapping = tiny.trained(network())
    layer, sample = mapping.layers[0], noise(1, 4, 5, 1, 1)
    attention, norm = layer.attention, layer.norm
    with torch.no_grad():
        first, _, second = layer.convolutions
        y = second(torch.nn.functional.silu(first(sample[..., 0, 0])))[0].T  # (F, C)
        q, k, v = (project(norm(y)).reshape(5, 2, 4) for project in (attention.to_q, attention.to_k, attention.to_v))
        weights = torch.einsum("ihd,jhd->hij", q, k).div(2).softmax(-1)
        mixed = attention.to_out[0](torch.einsum("hij,jhd->ihd", weights, v).reshape(5, 8))
        expected = sample[0, ..., 0, 0].T + y + layer.proj_out(mixed)
        torch.testing.assert_close(mapping(sample)[0, ..., 0, 0].T, expected)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 8_328),
        ({"conv": "3d"}, 9_096),
        ({"hidden_channels": 320}, 1_374_080 + 2_884),
        ({"hidden_channels": 320, "conv": "3d"}, 6_289_280 + 2_884),
    ],
)
def test_it_has_the_parameters_of_the_paper_size(options, count):
    """Behind the plus sign: the two convolutions that lift the latents to 320 channels and lower them again."""
    with torch.device("meta"):
        assert count_parameters(MappingNetwork(**HARIVO_MAPPING_NETWORK, **options)) == count


def test_it_is_saved_and_loaded_with_its_kind(tmp_path):
    mapping = tiny.trained(network(conv="3d", hidden_channels=8))
    mapping.save_pretrained(tmp_path)
    loaded, sample = MappingNetwork.from_pretrained(tmp_path), noise(1, 4, 3, 2, 2)
    assert torch.equal(loaded(sample), mapping(sample))


def test_what_it_cannot_be_or_take_is_refused():
    with pytest.raises(ValueError, match="conv must be one of temporal, 3d; got '2d'"):
        network(conv="2d")
    with pytest.raises(ValueError, match="num_layers must be at least 1; got 0"):
        network(num_layers=0)
    with pytest.raises(ValueError, match="sample must be .*4, F, H, W.*got 3 channels"):
        network()(noise(1, 3, 2, 2, 2))
