"""Fixtures that several rooms share: one tiny pipeline with random weights, built once, never changed by a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tiny


@pytest.fixture(scope="session")
def art_v() -> Any:
    """A tiny ART-V pipeline; a test that changes something builds its own with `tiny.art_v()`."""
    return tiny.art_v()


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """A generator with a seed."""
    return lambda seed=0: torch.Generator().manual_seed(seed)
