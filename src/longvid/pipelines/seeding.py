"""Random numbers of a window: they depend on the seed and the window's number, and on nothing that ran before.

One integer key is drawn from every user generator when a stream starts. Window k draws all its noise from a generator
seeded by ``mix(key, k)``, so any window can be made again, alone, and a stream can go on from its saved keys.
The window generators live on the CPU: the same seed gives the same noise on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_MASK = 0xFFFFFFFF
_MAX_KEY = 2**63 - 1


def mix(key: int, index: int) -> int:
    """Mix a key and a window number into a 32-bit seed.

    For a fixed key this is a bijection of ``index`` modulo 2^32 (two rounds of murmur3's finaliser around a key
    addition), so no two windows of one stream share a seed. PyTorch's CPU generator reads 32 bits of its seed.

    Args:
        key: The stream's key, at least 0.
        index: The window; negative numbers are free for draws that belong to no window.
    """
    high = _scramble((key >> 32) & _MASK)
    return _scramble((_scramble((index + key) & _MASK) + high) & _MASK)


def draw_keys(generator: torch.Generator | Sequence[torch.Generator] | None) -> tuple[int, ...]:
    """Draw one key from every generator; without a generator, one key from PyTorch's global state."""
    if generator is None or isinstance(generator, torch.Generator):
        return (_draw(generator),)
    return tuple(_draw(each) for each in generator)


def keys_of_seed(seed: int) -> tuple[int, ...]:
    """The keys that a generator with this seed gives: `draw_keys(torch.Generator().manual_seed(seed))`."""
    return draw_keys(torch.Generator().manual_seed(seed))


def window_generator(keys: Sequence[int], index: int) -> torch.Generator | list[torch.Generator]:
    """Give the generator of one window: one for the whole batch if there is one key, else a list, one per video."""
    generators = [torch.Generator().manual_seed(mix(key, index)) for key in keys]
    return generators[0] if len(generators) == 1 else generators


def _draw(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(0, _MAX_KEY, (1,), generator=generator, device=device).item())


def _scramble(x: int) -> int:
    """Murmur3's 32-bit finaliser, a bijection."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)
