"""A lean attention layer is the stock one, bit for bit, without the look at the processor's signature."""

import inspect
from copy import deepcopy

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

import tiny
from longvid.modules.attention import LeanAttention, install_lean_attention


class Scaled(AttnProcessor):
    """A processor with an option of its own."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, strength=1.0):
        return strength * super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)


@pytest.fixture
def stock():
    torch.manual_seed(0)
    return Attention(8, cross_attention_dim=6, heads=2, dim_head=4).eval()


def test_a_lean_layer_shares_the_weights_and_computes_the_same_bits(stock):
    lean = LeanAttention.of(stock)
    hidden, text = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    assert torch.equal(lean(hidden, text), stock(hidden, text))
    assert lean.to_q.weight is stock.to_q.weight
    assert lean.state_dict().keys() == stock.state_dict().keys()


def test_options_and_masks_reach_the_processor_as_they_reach_the_stock_layers(stock):
    stock.set_processor(Scaled())
    lean = LeanAttention.of(stock)
    hidden, text, mask = torch.randn(2, 5, 8), torch.randn(2, 3, 6), torch.randn(2, 1, 3)
    assert torch.equal(lean(hidden, text, strength=3.0), stock(hidden, text, strength=3.0))
    assert torch.equal(lean(hidden, text, mask), stock(hidden, text, mask))
    assert torch.equal(lean(hidden, text, unheard_of=1), stock(hidden, text))  # warned of and left out, as ever


def test_a_network_with_lean_layers_makes_the_same_bits():
    stock = tiny.stock_video_unet()
    lean = deepcopy(stock)
    count = install_lean_attention(lean)
    sample, text = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 12, tiny.TEXT_WIDTH)
    with torch.no_grad():
        assert torch.equal(lean(sample, 7, text).sample, stock(sample, 7, text).sample)
    layers = [module for module in lean.modules() if isinstance(module, Attention)]
    assert len(layers) == count > 0
    assert all(type(layer) is LeanAttention for layer in layers)
    assert install_lean_attention(lean) == 0, "a second time there is nothing left to do"
    assert list(lean.state_dict()) == list(stock.state_dict())
    assert lean.attn_processors.keys() == stock.attn_processors.keys()


def test_layers_of_other_classes_and_hooked_ones_stay():
    class Own(Attention):
        pass

    hooked = Attention(8, heads=2, dim_head=4)
    hooked._hf_hook = object()
    network = nn.ModuleList([Own(8, heads=2, dim_head=4), hooked])
    assert install_lean_attention(network) == 0
    assert type(network[0]) is Own
    assert network[1] is hooked


@pytest.mark.parametrize(("build", "frames"), [(tiny.anchored_unet, None), (tiny.video_unet, 1), (tiny.motion_unet, 2)])
def test_no_network_of_ours_looks_at_a_signature_in_its_forward_pass(build, frames, monkeypatch):
    network = build()
    assert not [name for name, module in network.named_modules() if type(module) is Attention]
    monkeypatch.setattr(inspect, "signature", lambda *_: pytest.fail("a signature was looked at"))
    shape = (4, 4) if frames is None else (frames, 4, 4)
    with torch.no_grad():
        network(torch.randn(1, network.conv_in.in_channels, *shape), 3, torch.randn(frames or 1, 12, tiny.TEXT_WIDTH))
