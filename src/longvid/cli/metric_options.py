"""Words `METRIC.OPTION=VALUE` of a command line: what a metric needs, such as the file of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def split_metric_options(words: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Take the words whose key begins with the name of a metric, such as ``lpips.backbone=alexnet.pth``.

    A value of digits becomes a number, any other stays text.

    Returns:
        The options by metric, and the other words in their order.
    """
    from longvid.metrics.base import METRICS

    options: dict[str, dict[str, Any]] = {}
    others: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        metric, dot, name = key.partition(".")
        if dot and name and value and metric in METRICS:
            options.setdefault(metric, {})[name] = int(value) if value.isdecimal() else value
        else:
            others.append(word)
    return options, others


def check_options(names: Sequence[str], options: dict[str, dict[str, Any]], *, prompt: str, device: str) -> None:
    """Make every metric once, so that what is missing is known before any work.

    Raises:
        ValueError: for an unknown metric or option, options of a metric that is not asked for, or missing weights.
    """
    from longvid.metrics.base import accepted_options, make_metric

    unused = sorted(set(options) - set(names))
    if unused:
        raise ValueError(f"there are options for metrics that are not asked for: {', '.join(unused)}")
    for name in names:
        offered = accepted_options(name, {"prompt": prompt, "device": device})
        make_metric(name, **{**offered, **options.get(name, {})})
