"""Where the random choices of a micro-batch come from."""

from __future__ import annotations

import torch


def batch_draws(seed: int, index: int) -> torch.Generator:
    """The generator of micro-batch `index`; it depends on these two numbers alone.

    PyTorch's CPU generator reads the lower 32 bits of its seed, so runs with different seeds start far apart on one
    ring of 2^32 generators.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + index) % 2**32)
