"""How a network is told the noise level of its references: three embeddings, one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn


class LevelTable(nn.Embedding):
    """One learned row per noise level, added to the time embedding (the reading that fits ART-V's counts best).

    Shapes:
        level (B,) integers in [0, num_levels) -> (B, D).
    """

    def zero_init(self) -> None:
        """Zero every row."""
        nn.init.zeros_(self.weight)

    def forward(self, level: Tensor, sinusoid: Callable[[Tensor], Tensor], time_embedding: nn.Module) -> Tensor:  # noqa: ARG002
        """Look the level up; the sinusoid and the time embedding of the UNet are not used."""
        return super().forward(level)


class LevelMLP(TimestepEmbedding):
    """An own two-layer network on the sinusoid of the level, shaped like the time embedding.

    Shapes:
        level (B,) -> (B, D).
    """

    def zero_init(self) -> None:
        """Zero the second layer."""
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, level: Tensor, sinusoid: Callable[[Tensor], Tensor], time_embedding: nn.Module) -> Tensor:  # noqa: ARG002
        """Embed the sinusoid of the level."""
        return super().forward(sinusoid(level))


class SharedLevel(nn.Module):
    """The UNet's own time embedding reads the level too; the one new weight is a gate on the result.

    Shapes:
        level (B,) -> (B, D).
    """

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(()))

    def zero_init(self) -> None:
        """Close the gate."""
        nn.init.zeros_(self.gate)

    def forward(self, level: Tensor, sinusoid: Callable[[Tensor], Tensor], time_embedding: nn.Module) -> Tensor:
        """Embed the level as if it were a timestep."""
        return self.gate * time_embedding(sinusoid(level))


LEVEL_EMBEDDINGS: dict[str, Callable[[int, int, int], LevelTable | LevelMLP | SharedLevel]] = {
    "table": lambda num_levels, sinusoid_dim, dim: LevelTable(num_levels, dim),
    "mlp": lambda num_levels, sinusoid_dim, dim: LevelMLP(sinusoid_dim, dim),
    "shared": lambda num_levels, sinusoid_dim, dim: SharedLevel(),
}
