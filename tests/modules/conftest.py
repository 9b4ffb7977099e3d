"""Inputs of the tiny networks in `networks.py`."""

from collections.abc import Callable

import pytest
import torch
from networks import draw
from torch import Tensor

from longvid.modules import ReferenceConditions


@pytest.fixture
def batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """(sample, timestep, text) of a batch of two."""

    def make(size: tuple[int, int] = (8, 8), num: int = 2) -> tuple[Tensor, Tensor, Tensor]:
        return draw(num, 8, *size), torch.tensor(500), draw(num, 5, 16, seed=3)

    return make


@pytest.fixture
def conditions() -> Callable[..., ReferenceConditions]:
    def make(size: tuple[int, int] = (8, 8), num: int = 2) -> ReferenceConditions:
        references = draw(num, 16, *size, seed=4)
        return ReferenceConditions(
            references=references,
            static_reference=references[:, :8],
            anchor=draw(num, 8, *size, seed=5),
            noise_level=torch.tensor([200, 7] * num)[:num],
        )

    return make
