"""HARIVO's losses: closed forms, and equality with plain loops."""

from __future__ import annotations

import math
import socket

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

import tiny
from longvid.training.losses import (
    ContrastiveLoss,
    ContrastiveProjection,
    NegativeQueue,
    SelfAttention,
    decoder_self_attentions,
    decoupled_contrastive_loss,
    mapping_regularisation,
    observed,
    temporal_attention_loss,
)
from longvid.training.losses.contrastive import two_frames


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers(*token_counts, batch=2, num_frames=3, num_heads=2, width=3):
    """Self-attention layers of random queries and keys."""
    shape = (batch * num_frames, num_heads * width)
    parts = [
        [draw(shape[0], count, shape[1], seed=10 * count + part).requires_grad_() for part in range(2)]
        for count in token_counts
    ]
    return [SelfAttention(query, key, num_heads, width**-0.5) for query, key in parts]


def plain_trs(attentions, num_frames, reduction, heads):
    """Eq. 3 in loops: every map whole, one frame after another."""
    total = 0.0
    for i, layer in enumerate(attentions, 1):
        frames, count, _ = layer.query.shape
        videos, width = frames // num_frames, layer.query.shape[2] // layer.num_heads
        maps = torch.zeros(frames, layer.num_heads, count, count, dtype=torch.float64)
        for frame in range(frames):
            for head in range(layer.num_heads):
                part = slice(head * width, (head + 1) * width)
                scores = torch.tensor(
                    [
                        [float(q @ k) * layer.scale for k in layer.key[frame, :, part].detach()]
                        for q in layer.query[frame, :, part].detach()
                    ],
                    dtype=torch.float64,
                )
                maps[frame, head] = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        if heads == "mean":
            maps = maps.mean(dim=1, keepdim=True)
        changes = []
        for video in range(videos):
            for j in range(1, num_frames):
                frame = video * num_frames + j
                changes.append((maps[frame] - maps[frame - 1]).abs())
        changes = torch.stack(changes)
        value = {"sum": changes.sum() / videos, "row": changes.sum(-1).mean(), "mean": changes.mean()}[reduction]
        total += i / len(attentions) * float(value)
    return total


@pytest.mark.parametrize("reduction", ["row", "mean", "sum"])
@pytest.mark.parametrize("heads", ["all", "mean"])
def test_the_attention_loss_is_eq_3(reduction, heads):
    attentions = layers(4, 6)
    loss = temporal_attention_loss(attentions, 3, reduction=reduction, heads=heads, query_chunk=4)
    assert loss.item() == pytest.approx(plain_trs(attentions, 3, reduction, heads), rel=1e-6)


def test_maps_that_jump_between_two_keys_cost_2_a_row_times_the_weights_of_the_layers():
    """Nine layers of Stable Diffusion's decoder: weights 1/9 to 1, which sum to 5, so the loss is 10 at most."""
    sharp = torch.tensor([[1.0], [-1.0]]).repeat(2, 1, 1)  # two frames of two tokens
    key = 100 * torch.stack([sharp[0], -sharp[0]])
    nine = [SelfAttention(torch.ones_like(key), key, 1, 1.0)] * 9
    assert temporal_attention_loss(nine, 2).item() == pytest.approx(10.0)
    assert temporal_attention_loss(nine, 2, reduction="sum").item() == pytest.approx(5 * 2 * 2)


def test_frames_that_are_alike_and_single_frames_cost_nothing():
    query, key = draw(2, 5, 4), draw(2, 5, 4, seed=1)
    alike = SelfAttention(query.repeat_interleave(3, dim=0), key.repeat_interleave(3, dim=0), 2, 1.0)
    assert temporal_attention_loss([alike], 3) == 0
    [single] = layers(4, num_frames=1)
    loss = temporal_attention_loss([single], 1)
    loss.backward()
    assert loss == 0 and not single.query.grad.any()


def test_chunks_of_queries_change_neither_the_loss_nor_its_gradient():
    results = []
    for chunk in (1, 2, 100):
        attentions = layers(5, 7)
        loss = temporal_attention_loss(attentions, 3, query_chunk=chunk)
        loss.backward()
        results.append((loss.detach(), attentions[0].query.grad, attentions[1].key.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-9)


def test_a_share_of_the_queries_has_the_expectation_of_all():
    for reduction in ("row", "mean", "sum"):
        attentions, seen = layers(4), set()
        for seed in range(40):  # one query of four: each is drawn sooner or later
            options = {"query_fraction": 0.25, "generator": torch.Generator().manual_seed(seed)}
            seen.add(temporal_attention_loss(attentions, 3, reduction=reduction, **options).item())
        assert len(seen) == 4
        whole = temporal_attention_loss(attentions, 3, reduction=reduction).item()
        assert sum(seen) / 4 == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reduction": "median"}, "reduction must be one of row, mean, sum; got 'median'"),
        ({"heads": "first"}, "heads must be one of all, mean; got 'first'"),
        ({"query_fraction": 0.0}, "query_fraction must be above 0 and at most 1; got 0.0"),
        ({"query_chunk": 0}, "query_chunk must be at least 1; got 0"),
        ({"num_frames": 4}, "expected videos of 4 frames; got a batch of 6 frames"),
    ],
)
def test_a_wrong_setting_of_the_attention_loss_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        temporal_attention_loss(layers(4), **{"num_frames": 3, **options})


@pytest.fixture(scope="module")
def unet():
    return tiny.unet(up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))


def call(unet, **options):
    sample, text = draw(4, tiny.LATENT_CHANNELS, 8, 8).float(), draw(4, 5, tiny.TEXT_WIDTH).float()
    return unet(sample, 500, text, return_dict=False, **options)[0]


def test_what_is_seen_of_a_unet_are_its_maps_and_its_bottleneck_and_nothing_stays_in_it(unet):
    kept = []
    [*_, last] = decoder_self_attentions(unet)
    handle = last.register_forward_pre_hook(lambda _m, args, kwargs: kept.append(args[0]), with_kwargs=True)
    with torch.no_grad():
        plain = call(unet)
        with observed(unet) as seen:
            assert torch.equal(call(unet), plain)
    handle.remove()
    assert len(seen.attentions) == 4 and seen.hidden.shape == (4, 32, 4, 4)
    query, key = (last.head_to_batch_dim(projection(kept[-1])) for projection in (last.to_q, last.to_k))
    layer = seen.attentions[-1]
    mine = last.head_to_batch_dim(layer.query) @ last.head_to_batch_dim(layer.key).transpose(1, 2)
    torch.testing.assert_close((mine * layer.scale).softmax(-1), last.get_attention_scores(query, key))
    assert not any(module._forward_hooks for module in unet.modules())
    with pytest.raises(RuntimeError), observed(unet):
        raise RuntimeError
    assert not any(module._forward_hooks for module in unet.modules())


def test_gradients_of_what_is_seen_pass_gradient_checkpointing(unet):
    grads = []
    for checkpointing in (False, True):
        unet.train()
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        with observed(unet) as seen:
            call(unet)
        unet.zero_grad()
        (temporal_attention_loss(seen.attentions, 2) + seen.hidden.square().mean()).backward()
        grads.append(unet.conv_in.weight.grad.clone())
    unet.disable_gradient_checkpointing()
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-6)


def test_a_unet_without_decoder_attention_is_refused():
    plain = tiny.unet(up_block_types=("UpBlock2D", "UpBlock2D"))
    with pytest.raises(ValueError, match="expected self-attention in the decoder"), observed(plain):
        pass


def test_the_contrastive_loss_of_two_negatives_leaves_the_positive_out_of_the_sum():
    z1, z2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    negatives = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    loss = decoupled_contrastive_loss(z1, z2, negatives, temperature=0.5)
    assert loss.item() == pytest.approx(-0.6 / 0.5 + math.log(math.exp(0.0) + math.exp(-1 / 0.5)))


@pytest.mark.parametrize("in_batch", [False, True])
def test_the_contrastive_loss_is_eq_4(in_batch):
    z1, z2, queue = draw(3, 4), draw(3, 4, seed=1), draw(5, 4, seed=2)
    expected = 0.0
    for b in range(3):
        others = list(queue)
        if in_batch:
            others += [z for k in range(3) if k != b for z in (z1[k], z2[k])]
        total = sum(math.exp(float(z1[b] @ other) / 2.0) for other in others)
        expected += (-float(z1[b] @ z2[b]) / 2.0 + math.log(total)) / 3
    loss = decoupled_contrastive_loss(z1, z2, queue, temperature=2.0, in_batch=in_batch)
    assert loss.item() == pytest.approx(expected)


def test_without_negatives_the_contrastive_loss_is_zero_with_a_gradient_of_zero():
    z1, z2 = draw(1, 4).requires_grad_(), draw(1, 4, seed=1)
    for in_batch in (False, True):  # a batch of one video has no others
        loss = decoupled_contrastive_loss(z1, z2, draw(0, 4), in_batch=in_batch)
        loss.backward()
        assert loss == 0 and not z1.grad.any()


def test_the_queue_is_first_in_first_out_and_goes_round():
    queue = NegativeQueue(3, (1,))
    assert len(queue) == 0 and queue.filled().shape == (0, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    assert queue.filled().flatten().tolist() == [2, 1]
    queue.push(torch.tensor([[3.0], [4.0]]))
    assert queue.filled().flatten().tolist() == [4, 3, 2]
    queue.push(torch.arange(5.0, 10)[:, None])
    assert queue.filled().flatten().tolist() == [9, 8, 7]
    again = NegativeQueue(3, (1,))
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.filled(), queue.filled())
    with pytest.raises(ValueError, match="at least 1 entry; got queue_size=0"):
        NegativeQueue(0, (1,))


@pytest.mark.parametrize("store", ["h", "z"])
def test_two_frames_of_every_video_meet_and_then_wait_as_negatives(store):
    """With the projection, the queue and the draws undone, the module is the plain loss."""
    torch.manual_seed(0)
    module = ContrastiveLoss(3, (2, 2), queue_size=6, store=store)
    first, second = draw(8, 3, 2, 2).float(), draw(8, 3, 2, 2, seed=1).float()
    draws = torch.Generator().manual_seed(5)
    assert module(first, 4, draws) == 0
    assert len(module.queue) == 4
    queued = module.queue.filled().clone()
    known = first if store == "h" else torch.nn.functional.normalize(module.projection(first), dim=-1)
    assert all(any(torch.allclose(entry, frame) for frame in known) for entry in queued)
    state, losses = draws.get_state(), module(second, 4, draws)
    draws.set_state(state)
    picks = two_frames(2, 4, draws, second.device)
    assert (picks[0] != picks[1]).all()
    z1, z2 = (
        torch.nn.functional.normalize(module.projection(second[torch.tensor([0, 4]) + pick]), dim=-1) for pick in picks
    )
    negatives = torch.nn.functional.normalize(module.projection(queued), dim=-1) if store == "h" else queued
    torch.testing.assert_close(losses, decoupled_contrastive_loss(z1, z2, negatives))
    losses.backward()
    assert module.projection[0].weight.grad.any() and len(module.queue) == 6


def test_every_pair_of_different_frames_comes_up():
    first, second = two_frames(400, 3, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {
        (a, b) for a in range(3) for b in range(3) if a != b
    }


def test_the_contrastive_loss_names_what_it_cannot_use():
    with pytest.raises(ValueError, match="stores one of h, z; got 'x'"):
        ContrastiveLoss(3, (2, 2), store="x")
    module = ContrastiveLoss(3, (2, 2), queue_size=4)
    for shape, num_frames in (((4, 3, 2, 3), 2), ((5, 3, 2, 2), 2), ((4, 3, 2, 2), 1)):
        with pytest.raises(ValueError, match=r"features \(B \* F, 3, 2, 2\) of videos of at least 2 frames"):
            module(torch.zeros(shape), num_frames)


def test_the_projection_at_paper_size_has_its_parameters():
    with torch.device("meta"):
        projection = ContrastiveProjection(1280, (4, 4))
    assert sum(parameter.numel() for parameter in projection.parameters()) == 31_133_440
    assert projection(torch.zeros(2, 1280, 4, 4, device="meta")).shape == (2, 1280)


def test_the_regularisation_is_eq_2():
    video, image, t = draw(3, 4, 2, 5, 5), draw(3, 4, 2, 5, 5, seed=1), torch.tensor([0, 250, 900])
    expected = sum(
        (1 - int(t[b]) / 1000) * float(((video[b] - image[b]) ** 2).sum()) / video[b].numel() / 3 for b in range(3)
    )
    assert mapping_regularisation(video, image, t).item() == pytest.approx(expected, rel=1e-5)


def test_the_regularisation_is_zero_at_the_last_step_and_the_whole_error_at_the_first():
    video, image = torch.full((1, 1, 2, 3, 3), 3.0), torch.full((1, 1, 2, 3, 3), 1.0)
    assert mapping_regularisation(video, image, torch.tensor([1000])) == 0
    assert mapping_regularisation(video, image, torch.tensor([0])) == 4
    assert mapping_regularisation(video, video, torch.tensor([0])) == 0
    assert mapping_regularisation(video, image, torch.tensor([25]), 100) == 3


def test_both_models_get_the_gradient_of_the_regularisation_unless_the_image_model_is_a_target():
    for detach in (False, True):
        video, image = torch.ones(1, 1, 1, 2, 2, requires_grad=True), torch.zeros(1, 1, 1, 2, 2, requires_grad=True)
        mapping_regularisation(video, image, torch.tensor([0]), detach=detach).backward()
        assert video.grad.any() and (image.grad is None) == detach
    with pytest.raises(ValueError, match="two predictions of one shape"):
        mapping_regularisation(torch.zeros(1, 1, 1, 2, 2), torch.zeros(1, 1, 1, 2, 3), torch.tensor([0]))


def push_in_a_process(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    queue = NegativeQueue(3, (1,))
    queue.push(torch.tensor([[1.0], [2.0]]) + 10 * rank)
    torch.save(queue.filled().flatten().tolist(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_queues_of_all_processes_hold_the_same(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.start_processes(push_in_a_process, (port, tmp_path), nprocs=2, start_method="fork")
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [[12, 11, 2]] * 2
