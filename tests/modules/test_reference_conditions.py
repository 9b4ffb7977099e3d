"""Laws of the conditions: encode once, flatten, join."""

import pytest
import torch
from networks import MASK, build, shake

from longvid.modules import MaskedDiffusionModel, ReferenceConditions


def same(first: ReferenceConditions, second: ReferenceConditions) -> bool:
    first, second = first.to_dict(), second.to_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@torch.no_grad()
@pytest.mark.parametrize("static_noise", ["ref_minus_noisy", "scaled"])
def test_predictions_with_and_without_the_cache_are_bit_identical(static_noise, batch, conditions):
    model = MaskedDiffusionModel(shake(build()), shake(build(**MASK)), static_noise=static_noise)
    raw = model(*batch(), conditions=conditions(), alpha_bar=0.5)
    cached = model(*batch(), conditions=model.cache(conditions()), alpha_bar=0.5)
    for name in ("noise", "mask", "dynamic", "static"):
        assert torch.equal(raw[name], cached[name]), name


@torch.no_grad()
@pytest.mark.parametrize("anchor_injection", ["block", "none"])
def test_a_flat_dictionary_and_back_is_the_same(anchor_injection, conditions):
    encoded = conditions().encoded_by(build(anchor_injection=anchor_injection), build(**MASK))
    for given in (conditions(), encoded):
        tensors = given.to_dict()
        assert all(len(tensor) == 2 for tensor in tensors.values())
        assert same(ReferenceConditions.from_dict(tensors | {"encoder_hidden_states": torch.zeros(2)}), given)


@torch.no_grad()
def test_a_joined_batch_predicts_what_its_parts_predict(batch, conditions):
    model = MaskedDiffusionModel(shake(build()), shake(build(**MASK)))
    sample, timestep, text = batch()
    rows = [
        ReferenceConditions.from_dict({key: tensor[i : i + 1] for key, tensor in conditions().to_dict().items()})
        for i in range(2)
    ]
    assert same(ReferenceConditions.concatenate(rows), conditions())
    joined = ReferenceConditions.concatenate([model.cache(row) for row in rows])
    noise = model(sample, timestep, text, conditions=joined).noise
    for i, row in enumerate(rows):
        part = model(sample[i : i + 1], timestep, text[i : i + 1], conditions=row).noise
        torch.testing.assert_close(noise[i : i + 1], part, atol=1e-5, rtol=1e-5)


def test_conditions_that_do_not_match_cannot_be_joined(conditions):
    with pytest.raises(ValueError, match="must have the same fields"):
        ReferenceConditions.concatenate([conditions(), conditions().encoded_by(build())])
