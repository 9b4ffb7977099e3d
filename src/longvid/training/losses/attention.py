"""HARIVO's temporal regularised self-attention loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from longvid.training.losses.observe import SelfAttention

REDUCTIONS = ("row", "mean", "sum")
HEADS = ("all", "mean")


def temporal_attention_loss(
    layers: Sequence[SelfAttention],
    num_frames: int,
    *,
    reduction: str = "row",
    heads: str = "all",
    query_chunk: int = 256,
    query_fraction: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""How much the self-attention maps change from frame to frame.

    .. math:: L_{TRS} = \sum_{i=1}^{N} \frac{i}{N} \sum_{j=2}^{F} \bigl| A_i^{(j)} - A_i^{(j-1)} \bigr|,
        \qquad A_i = \mathrm{softmax}(q_i k_i^\top s_i)

    Maps are made for `query_chunk` queries of one layer at a time, and again in the backward pass, so that memory does
    not grow with their size.

    Args:
        layers: Queries and keys of the N decoder layers, in the order of the forward pass.
        num_frames: F, which divides the batch of the layers.
        reduction: How the inner sum is taken, always with the mean over the batch. "sum": as the formula reads, about
            10^6 times larger than a denoising loss at the paper's size. "row": sum over keys, mean over queries, heads
            and frame pairs; a row of a map sums to 1, so one layer gives 0 to 2. "mean": over keys too.
        heads: "all" compares every head with itself, "mean" the mean map of the heads.
        query_chunk: Queries at a time.
        query_fraction: Share of the queries that is looked at, drawn anew for every layer; the expectation stays.
        generator: Draws the queries.

    Returns:
        A scalar in float32; 0 for a single frame.

    Raises:
        ValueError: for another reduction or way to treat heads, a fraction outside (0, 1], a chunk below 1, no layer, or
            a batch that is not made of videos of F frames.

    Source: HARIVO, Eq. 3. The paper does not state the reduction; "row" is the one that goes with its weight of 0.1.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
    if heads not in HEADS:
        raise ValueError(f"heads must be one of {', '.join(HEADS)}; got {heads!r}")
    if not 0 < query_fraction <= 1:
        raise ValueError(f"query_fraction must be above 0 and at most 1; got {query_fraction}")
    if query_chunk < 1:
        raise ValueError(f"query_chunk must be at least 1; got {query_chunk}")
    if not layers:
        raise ValueError("expected at least one layer; got none")
    total = torch.zeros((), device=layers[0].query.device)
    for number, layer in enumerate(layers, 1):
        queries = _some(layer.query.shape[1], query_fraction, generator, layer.query.device)
        change = _change(layer, num_frames, queries, heads == "mean", query_chunk)
        total = total + number / len(layers) * change / _count(layer, num_frames, queries, reduction, heads)
    return total


def _change(
    layer: SelfAttention, num_frames: int, queries: Tensor | None, mean_heads: bool, query_chunk: int
) -> Tensor:
    """Sum of the absolute changes of a layer's maps, over everything."""
    if len(layer.query) % num_frames:
        raise ValueError(f"expected videos of {num_frames} frames; got a batch of {len(layer.query)} frames")
    split = {"f": num_frames, "h": layer.num_heads}
    key = rearrange(layer.key, "(b f) n (h d) -> b f h d n", **split)
    query = rearrange(layer.query, "(b f) n (h d) -> b f h n d", **split) * layer.scale
    if queries is not None:
        query = query[..., queries, :]
    total = query.float().sum() * 0  # a single frame has a gradient too: zero
    if num_frames == 1:
        return total
    for part in query.split(query_chunk, dim=-2):
        total = total + checkpoint(_chunk_change, part, key, mean_heads, use_reentrant=False)
    return total


def _chunk_change(query: Tensor, key: Tensor, mean_heads: bool) -> Tensor:
    maps = (query @ key).float().softmax(dim=-1)
    if mean_heads:
        maps = maps.mean(dim=2)
    return maps.diff(dim=1).abs().sum()


def _count(layer: SelfAttention, num_frames: int, queries: Tensor | None, reduction: str, heads: str) -> float:
    """What the sum of a layer's changes is divided by."""
    batch, num_tokens = len(layer.query) // num_frames, layer.query.shape[1]
    looked_at = num_tokens if queries is None else len(queries)
    if reduction == "sum":
        return batch * looked_at / num_tokens
    rows = batch * max(num_frames - 1, 1) * looked_at * (layer.num_heads if heads == "all" else 1)
    return rows * (num_tokens if reduction == "mean" else 1)


def _some(count: int, fraction: float, generator: torch.Generator | None, device: torch.device) -> Tensor | None:
    """Indices of a random share of the queries, at least one; None for all."""
    if fraction == 1:
        return None
    order = torch.randperm(count, generator=generator, device=generator.device if generator else device)
    return order[: math.ceil(fraction * count)].to(device)
