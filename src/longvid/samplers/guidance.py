"""Classifier-free guidance over any number of conditions, as a wrapper around a conditional predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

from .prediction import math_dtype
from .processes import ALONE, Processes

Conditions: TypeAlias = Mapping[str, Any]
Predict: TypeAlias = Callable[[torch.Tensor, Any], torch.Tensor]
ConditionalPredict: TypeAlias = Callable[[torch.Tensor, Any, Conditions], torch.Tensor]
Scale: TypeAlias = float | Callable[[float], float]


def guided(
    predict: ConditionalPredict,
    conditions: Sequence[Conditions],
    scales: Sequence[Scale],
    *,
    batched: bool = True,
    rescale: float = 0.0,
    processes: Processes = ALONE,
) -> Predict:
    r"""Push the prediction away from what it would be without each condition.

    .. math:: \hat\epsilon = (1 + \textstyle\sum_i w_i)\, \epsilon_{full} - \sum_i w_i\, \epsilon_i

    The weights sum to one, so the same rule serves epsilon, v and x0. Text guidance of scale s in the usual notation is
    one dropped condition with w = s - 1. Only distinct branches are evaluated: one of weight 0 is skipped, and so is
    one whose conditions are the very objects of the full branch (a condition that is blank already); dropped branches
    that share all their objects are evaluated once.

    Args:
        predict: `predict(sample, timestep, conditions) -> prediction`.
        conditions: The full conditions, then one dictionary per dropped condition, all with the same keys. Tensors have
            the batch first (a size of 1 is broadcast); lists, tuples and dictionaries of tensors may nest; None,
            numbers and strings are passed on as they are.
        scales: One weight :math:`w_i` per dropped condition: a number, or a function of the timestep, such as
            `lambda t: 6.5 if 200 < t < 900 else 0.0`, which is called with a Python float before every evaluation.
        batched: Evaluate the branches in one call with their tensors joined along the batch, or one call after another,
            which needs less memory. Branches that cannot share a call (None beside a tensor, text of other lengths) get
            calls of their own. The result is the same up to rounding.
        rescale: Share in [0, 1] of the result whose standard deviation is set back to that of the full branch.
        processes: Who evaluates the branches. Several processes take turns, one branch at a time whatever `batched`
            says, and all end with the bits that one process has without `batched`. Of n branches with predictions of
            b bytes, n (P - 1) b bytes travel per call.
    Shapes:
        sample (B, ...) and timestep () or (B,) -> prediction (B, ...), dtype of what `predict` returns.

    Raises:
        ValueError: if there is not one scale per dropped condition, the dictionaries differ in keys, or `rescale` is
            outside [0, 1].
    Source: Ho & Salimans (arXiv:2207.12598); several conditions as in ART-V, Eq. 8 (arXiv:2311.18834).
    """
    full, *dropped = _checked(conditions, scales)
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale must be in [0, 1]; got {rescale}")

    def guided_predict(sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        branches, weights = _distinct(full, dropped, [scale_at(scale, timestep) for scale in scales])
        if processes.count > 1 or not batched:
            calls = [partial(predict, sample, timestep, branch) for branch in branches]
            prediction, *others = processes.spread(calls)
        else:
            prediction, *others = _evaluate(predict, sample, timestep, branches)
        if not others:
            return prediction
        reference = prediction.to(math_dtype(prediction))
        result = reference.clone()
        for weight, other in zip(weights, others, strict=True):
            result += weight * (reference - other)
        return rescale_guidance(result, reference, rescale).to(prediction.dtype)

    return guided_predict


def rescale_guidance(guided: torch.Tensor, conditional: torch.Tensor, amount: float = 0.7) -> torch.Tensor:
    r"""Give a guided prediction back the standard deviation of the conditional one, which large scales inflate.

    .. math:: \hat x = \phi\, \frac{\mathrm{std}(x_c)}{\mathrm{std}(x_g)}\, x_g + (1 - \phi)\, x_g

    Args:
        guided: The guided prediction :math:`x_g`.
        conditional: The prediction under the full conditions, :math:`x_c`.
        amount: :math:`\phi` in [0, 1]; 0 changes nothing.
    Shapes:
        (B, ...), (B, ...) -> (B, ...), one standard deviation per sample.
    Source: Lin et al., Sec. 3.4 (arXiv:2305.08891).
    """
    if amount == 0:
        return guided
    shape = (-1, *[1] * (guided.ndim - 1))
    ratio = conditional.flatten(1).std(dim=1) / guided.flatten(1).std(dim=1).clamp_min(1e-12)
    return guided * (1 + amount * (ratio.reshape(shape) - 1))


def _checked(conditions: Sequence[Conditions], scales: Sequence[Scale]) -> Sequence[Conditions]:
    if len(conditions) != len(scales) + 1:
        raise ValueError(
            f"expected the full conditions and one dictionary per scale, {len(scales) + 1} in all; "
            f"got {len(conditions)}"
        )
    for index, branch in enumerate(conditions[1:], start=1):
        if branch.keys() != conditions[0].keys():
            raise ValueError(
                f"expected the keys {sorted(conditions[0])} in every branch; branch {index} has {sorted(branch)}"
            )
    return conditions


def scale_at(scale: Scale, timestep: Any) -> float:
    """Give a scale at a timestep; a function of the timestep is called with a Python float.

    Raises:
        ValueError: if a function meets a timestep per sample.
    """
    if not callable(scale):
        return float(scale)
    if torch.is_tensor(timestep) and timestep.numel() != 1:
        raise ValueError(f"a scheduled scale needs one timestep for the batch; got shape {tuple(timestep.shape)}")
    return float(scale(float(timestep)))


def _distinct(
    full: Conditions, dropped: Sequence[Conditions], weights: Sequence[float]
) -> tuple[list[Conditions], list[float]]:
    """Return the full branch and the dropped ones that count, with their weights; equal branches are merged."""
    branches, totals = [full], [0.0]
    for branch, weight in zip(dropped, weights, strict=True):
        for index, known in enumerate(branches):
            if all(_same(branch[key], known[key]) for key in branch):
                totals[index] += weight
                break
        else:
            branches.append(branch)
            totals.append(weight)
    kept = [index for index in range(1, len(branches)) if totals[index] != 0]
    return [full, *(branches[index] for index in kept)], [totals[index] for index in kept]


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    scalars = (bool, int, float, str)
    return isinstance(first, scalars) and isinstance(second, scalars) and first == second


def _evaluate(
    predict: ConditionalPredict, sample: torch.Tensor, timestep: Any, branches: Sequence[Conditions]
) -> list[torch.Tensor]:
    """Return one prediction per branch, from as few calls as the shapes of the conditions allow."""
    batch = sample.shape[0]
    groups: dict[Any, list[int]] = {}
    for index, branch in enumerate(branches):
        groups.setdefault(_structure(branch), []).append(index)
    predictions: dict[int, torch.Tensor] = {}
    for members in groups.values():
        count = len(members)
        if count == 1:
            joined, samples, times = branches[members[0]], sample, timestep
        else:
            joined = _join([branches[index] for index in members], batch)
            samples = torch.cat([sample] * count)
            per_sample = torch.is_tensor(timestep) and timestep.ndim == 1 and timestep.shape[0] == batch
            times = torch.cat([timestep] * count) if per_sample else timestep
        predictions.update(zip(members, predict(samples, times, joined).chunk(count), strict=True))
    return [predictions[index] for index in range(len(branches))]


def _structure(value: Any) -> Any:
    """Return a hashable description; values with equal descriptions can be joined along the batch."""
    if torch.is_tensor(value) and value.ndim > 0:
        return "tensor", value.shape, value.dtype, value.device
    if isinstance(value, Mapping):
        return "mapping", tuple((key, _structure(value[key])) for key in sorted(value))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_structure(item) for item in value)
    return ("value", value) if isinstance(value, (bool, int, float, str)) else ("object", id(value))


def _join(values: Sequence[Any], batch: int) -> Any:
    """Concatenate the tensors of equally structured values along the batch; what is no tensor passes through."""
    first = values[0]
    if torch.is_tensor(first) and first.ndim > 0:
        if first.shape[0] == 1 and batch > 1:
            values = [value.expand(batch, *value.shape[1:]) for value in values]
        return torch.cat(list(values))
    if isinstance(first, Mapping):
        return {key: _join([value[key] for value in values], batch) for key in first}
    if isinstance(first, (list, tuple)):
        items = [_join(group, batch) for group in zip(*values, strict=True)]
        return items if isinstance(first, list) else tuple(items)
    return first
