"""Laws of the anchor tokens and their positions."""

import torch
from networks import draw

from longvid.modules.anchor_block import patch_tokens, sincos_positions


def test_tokens_are_the_pixel_unshuffled_latent_row_by_row():
    anchor = draw(2, 4, 6, 10)
    expected = torch.nn.functional.pixel_unshuffle(anchor, 2).flatten(2).transpose(1, 2)
    assert torch.equal(patch_tokens(anchor, 2), expected)


def test_paper_size_latents_give_400_tokens_of_width_16():
    assert patch_tokens(torch.zeros(1, 4, 40, 40), 2).shape == (1, 400, 16)


def test_odd_sides_are_extended_by_their_edge():
    anchor = draw(1, 4, 5, 7)
    edge = torch.cat([anchor, anchor[:, :, -1:]], dim=2)
    edge = torch.cat([edge, edge[..., -1:]], dim=3)
    assert torch.equal(patch_tokens(anchor, 2), patch_tokens(edge, 2))


def test_positions_are_distinct_and_their_products_depend_on_the_offset_alone():
    code = sincos_positions(5, 7, 16, like=torch.zeros(1, dtype=torch.float64)).reshape(5, 7, 16)
    assert torch.unique(code.reshape(-1, 16), dim=0).shape[0] == 35
    products = torch.einsum("hwd,hwd->hw", code[:-1, :-2], code[1:, 2:])  # each with its neighbour one down, two right
    torch.testing.assert_close(products, products[:1, :1].expand_as(products), atol=1e-6, rtol=0)
