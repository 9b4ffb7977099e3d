"""The Fréchet distance of two sets of features, from means and covariances that are gathered batch by batch."""

from __future__ import annotations

import os

import torch
from torch import Tensor


class RunningMoments:
    """Number, mean and covariance of feature vectors, in float64; memory O(D^2), whatever their number.

    Batches are joined by the formula of Chan et al. (1983), which loses no digits where the mean is large.

    Attributes:
        count: How many vectors were seen.
        mean: ``(D,)``; empty before the first.
        scatter: ``(D, D)``, the sum of the outer products of the deviations from the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.empty(0, dtype=torch.float64)
        self.scatter = torch.empty(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Take feature vectors ``(N, D)``, N at least 1.

        Raises:
            ValueError: if they are no such tensor, are not finite, or D differs from before.
        """
        if features.ndim != 2 or not len(features) or not features.isfinite().all():
            raise ValueError(f"expected finite features (N, D); got {tuple(features.shape)}")
        if self.count and features.shape[1] != len(self.mean):
            raise ValueError(f"expected features of width {len(self.mean)}; got {features.shape[1]}")
        features = features.detach().double().cpu()
        mean = features.mean(0)
        deviations = features - mean
        self._join(len(features), mean, deviations.T @ deviations)

    def merge(self, other: RunningMoments) -> None:
        """Take all that another one saw."""
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def covariance(self) -> Tensor:
        """The unbiased covariance ``(D, D)``.

        Raises:
            ValueError: if fewer than two vectors were seen.
        """
        if self.count < 2:
            raise ValueError(f"a covariance takes two feature vectors or more; got {self.count}")
        return self.scatter / (self.count - 1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file."""
        from safetensors.torch import save_file

        count = torch.tensor(self.count)
        save_file({"count": count, "mean": self.mean.contiguous(), "scatter": self.scatter.contiguous()}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunningMoments:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if it is no such file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            read = load_file(path)
            moments = cls()
            moments.count, moments.mean, moments.scatter = int(read["count"]), read["mean"], read["scatter"]
        except (SafetensorError, OSError, KeyError) as error:
            raise ValueError(f"{os.fspath(path)} is not a file of moments that longvid wrote: {error}") from error
        return moments

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if not self.count:
            self.count, self.mean, self.scatter = count, mean.clone(), scatter.clone()
            return
        total, difference = self.count + count, mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(difference, difference) * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total


def frechet_distance(left: RunningMoments, right: RunningMoments) -> float:
    r"""The squared Fréchet distance of two Gaussians with these means and covariances.

    .. math:: |\mu_1 - \mu_2|^2 + \mathrm{tr}(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})

    The trace of the root is taken from eigenvalues of symmetric matrices, so that it is real and needs no scipy.

    Raises:
        ValueError: if either saw fewer than two vectors, or their widths differ.

    Source: Dowson and Landau 1982; Unterthiner et al. 2019 (FVD).
    """
    if left.count and right.count and len(left.mean) != len(right.mean):
        raise ValueError(f"expected features of one width; got {len(left.mean)} and {len(right.mean)}")
    first, second = left.covariance(), right.covariance()
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    trace = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    distance = (left.mean - right.mean).square().sum() + first.trace() + second.trace() - 2 * trace
    return max(0.0, float(distance))
