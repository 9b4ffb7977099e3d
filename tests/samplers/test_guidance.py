import pytest
import torch

from longvid.samplers import guided, rescale_guidance


class Network:
    """A small nonlinear predictor that counts its calls and the branches it saw."""

    def __init__(self, batch=2):
        self.batch, self.calls, self.branches = batch, 0, 0

    def __call__(self, sample, timestep, conditions):
        self.calls += 1
        self.branches += len(sample) // self.batch
        time = torch.as_tensor(timestep, dtype=sample.dtype).reshape(-1, 1, 1, 1) / 1000
        bias = sum(conditions["text"].mean(dim=(1, 2)) for _ in range(1)).reshape(-1, 1, 1, 1)
        for weight, feature in enumerate(conditions.get("features") or (), start=2):
            bias = bias + feature.mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1) * weight
        if conditions.get("anchor") is not None:
            bias = bias + conditions["anchor"].amax(dim=(1, 2, 3)).reshape(-1, 1, 1, 1)
        return torch.tanh(sample * conditions.get("gain", 1.0) + bias + time)


def art_v_branches(batch=2):
    """Full, then without references, anchor and text, as in Eq. 8."""
    generator = torch.Generator().manual_seed(0)

    def features():
        return [torch.randn(batch, 3, size, size, generator=generator) for size in (4, 2)]

    anchor, text = torch.randn(batch, 4, 4, 4, generator=generator), torch.randn(batch, 7, 5, generator=generator)
    full = {"text": text, "features": features(), "anchor": anchor, "mask": None, "gain": 0.5}
    return [
        full,
        full | {"features": features()},
        full | {"anchor": torch.zeros_like(anchor)},
        full | {"text": torch.zeros_like(text)},
    ]


SAMPLE = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
T = torch.tensor(500.0)


def test_the_result_is_the_weighted_sum_of_eq_8():
    network, branches = Network(), art_v_branches()
    e = [network(SAMPLE, T, branch) for branch in branches]
    expected = 8 * e[0] - 0.25 * e[1] - 0.25 * e[2] - 6.5 * e[3]
    actual = guided(network, branches, (0.25, 0.25, 6.5))(SAMPLE, T)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_text_guidance_alone_is_ordinary_classifier_free_guidance():
    network, (full, _, _, null) = Network(), art_v_branches()
    e, e_null = network(SAMPLE, T, full), network(SAMPLE, T, null)
    actual = guided(network, [full, null], [6.5])(SAMPLE, T)
    torch.testing.assert_close(actual, e_null + 7.5 * (e - e_null), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("timestep", [T, torch.tensor([100.0, 900.0]), 500])
def test_batched_equals_sequential_for_lists_tuples_scalars_and_none(timestep):
    branches = art_v_branches()
    for kind in (list, tuple):
        branches = [branch | {"features": kind(branch["features"])} for branch in branches]
        one, many = Network(), Network()
        batched = guided(one, branches, (0.25, 0.25, 6.5))(SAMPLE, timestep)
        sequential = guided(many, branches, (0.25, 0.25, 6.5), batched=False)(SAMPLE, timestep)
        assert (one.calls, many.calls) == (1, 4)
        assert (batched - sequential).abs().max() < 1e-5  # weights of 8 on predictions that agree to 1e-7


@pytest.mark.parametrize(
    ("scales", "evaluations"),
    [((0, 0, 0), 1), ((0, 0, 6.5), 2), ((0.25, 0, 6.5), 3), ((0.25, 0.25, 6.5), 4), ((-0.5, 0, 0), 2)],
)
@pytest.mark.parametrize("batched", [True, False])
def test_a_scale_of_zero_saves_its_evaluation(scales, evaluations, batched):
    network = Network()
    guided(network, art_v_branches(), scales, batched=batched)(SAMPLE, T)
    assert network.branches == evaluations
    assert network.calls == (1 if batched else evaluations)


def test_all_scales_zero_return_the_full_prediction_itself():
    network, branches = Network(), art_v_branches()
    assert torch.equal(guided(network, branches, (0, 0, 0))(SAMPLE, T), network(SAMPLE, T, branches[0]))


def test_a_condition_that_is_blank_already_costs_nothing():
    full, _, _, null_text = art_v_branches()
    first_frame = [full, dict(full), full | {"features": list(full["features"])}, null_text]  # the same blank objects
    for batched in (True, False):
        network = Network()
        result = guided(network, first_frame, (0.25, 0.25, 6.5), batched=batched)(SAMPLE, T)
        assert network.branches == 2
        torch.testing.assert_close(result, guided(Network(), [full, null_text], [6.5])(SAMPLE, T))


def test_equal_dropped_branches_are_evaluated_once_with_their_weights_added():
    full, _, _, null = art_v_branches()
    network = Network()
    result = guided(network, [full, null, dict(null)], (2.0, 3.0))(SAMPLE, T)
    assert network.branches == 2
    torch.testing.assert_close(result, guided(Network(), [full, null], [5.0])(SAMPLE, T))


def test_branches_that_cannot_share_a_call_get_their_own():
    full, *dropped = art_v_branches()
    dropped[1] = full | {"anchor": None}
    dropped[2] = full | {"text": torch.zeros(2, 9, 5)}
    dropped.append(full | {"gain": 2.0})
    one, many = Network(), Network()
    batched = guided(one, [full, *dropped], (0.25, 0.25, 6.5, 1.0))(SAMPLE, T)
    sequential = guided(many, [full, *dropped], (0.25, 0.25, 6.5, 1.0), batched=False)(SAMPLE, T)
    assert one.calls == 4 and one.branches == 5
    assert (batched - sequential).abs().max() < 1e-5


def test_conditions_of_batch_one_serve_the_whole_batch():
    full, _, _, null = art_v_branches(batch=1)
    batched = guided(Network(), [full, null], [6.5])(SAMPLE, T)
    sequential = guided(Network(), [full, null], [6.5], batched=False)(SAMPLE, T)
    assert (batched - sequential).abs().max() < 1e-5


def test_videos_and_any_number_of_conditions_are_guided():
    calls = []

    def network(sample, timestep, conditions):
        calls.append(len(sample))
        return sample * conditions["a"].reshape(-1, 1, 1, 1, 1)

    video = torch.randn(2, 4, 3, 5, 5)
    branches = [{"a": torch.full((2,), float(value))} for value in range(7)]
    result = guided(network, branches, [1.0] * 6)(video, 10)
    assert calls == [14]
    torch.testing.assert_close(result, video * (7 * 0 - sum(range(1, 7))))


def test_scheduled_scales_are_functions_of_the_timestep():
    branches, seen = art_v_branches(), []

    def scale(timestep):
        seen.append(timestep)
        return 6.5 if 200 < timestep < 900 else 0.0

    for timestep, evaluations in ((999, 1), (500, 2), (100, 1)):
        network = Network()
        result = guided(network, branches, (0, lambda t: 0.0, scale))(SAMPLE, torch.tensor(timestep))
        assert network.branches == evaluations
        constant = guided(Network(), branches, (0, 0, 6.5 if evaluations == 2 else 0))(SAMPLE, torch.tensor(timestep))
        assert torch.equal(result, constant)
    assert seen == [999.0, 500.0, 100.0]
    with pytest.raises(ValueError, match="one timestep"):
        guided(Network(), branches, (0, 0, scale))(SAMPLE, torch.tensor([1, 2]))


def test_guidance_commutes_with_the_change_to_x0_because_the_weights_sum_to_one():
    network, branches = Network(), art_v_branches()

    def network_x0(sample, timestep, conditions):
        return (sample - 0.6 * network(sample, timestep, conditions)) / 0.8

    epsilon = guided(network, branches, (0.25, 0.25, 6.5))(SAMPLE, T)
    x0 = guided(network_x0, branches, (0.25, 0.25, 6.5))(SAMPLE, T)
    torch.testing.assert_close(x0, (SAMPLE - 0.6 * epsilon) / 0.8, rtol=1e-4, atol=1e-4)


def test_half_precision_is_combined_in_float32_and_returned_as_half():
    def network(sample, timestep, conditions):
        return conditions["value"].half()

    branches = [{"value": torch.full((2, 1), 1.001)}, {"value": torch.full((2, 1), 1.0)}]
    result = guided(network, branches, [999.0])(torch.zeros(2, 1).half(), T)
    exact = 1000 * branches[0]["value"].half().float() - 999
    assert result.dtype == torch.float16
    assert torch.equal(result, exact.half())


def test_gradients_reach_the_sample():
    sample = SAMPLE.clone().requires_grad_()
    guided(Network(), art_v_branches(), (0.25, 0.25, 6.5))(sample, T).sum().backward()
    assert sample.grad is not None and sample.grad.abs().sum() > 0


def test_full_rescaling_gives_every_sample_the_spread_of_the_full_branch():
    network, branches = Network(), art_v_branches()
    full = network(SAMPLE, T, branches[0])
    result = guided(network, branches, (0.25, 0.25, 6.5), rescale=1.0)(SAMPLE, T)
    torch.testing.assert_close(result.flatten(1).std(dim=1), full.flatten(1).std(dim=1))
    plain = guided(network, branches, (0.25, 0.25, 6.5))(SAMPLE, T)
    torch.testing.assert_close(
        guided(network, branches, (0.25, 0.25, 6.5), rescale=0.7)(SAMPLE, T), 0.7 * result + 0.3 * plain
    )
    assert rescale_guidance(plain, full, 0.0) is plain


def test_wrong_branches_and_scales_are_errors():
    full, *dropped = art_v_branches()
    with pytest.raises(ValueError, match="one dictionary per scale"):
        guided(Network(), [full, *dropped], (1.0,))
    with pytest.raises(ValueError, match="branch 2 has"):
        guided(Network(), [full, dropped[0], {"text": full["text"]}], (1.0, 1.0))
    with pytest.raises(ValueError, match="rescale"):
        guided(Network(), [full], (), rescale=1.5)
