"""Inception score of videos: clips should each be sure of their class, and together show many classes."""

from __future__ import annotations

from functools import lru_cache
from statistics import fmean, pstdev

import torch
from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, MissingWeights, check_frames
from longvid.metrics.video_features import C3D, C3DProbabilities, ClipNetwork, Clips


class InceptionScore(Metric):
    r"""Inception score of all whole clips seen.

    .. math:: \exp(E_x\, KL(p(y | x)\, \|\, p(y))) = \exp(H(E_x\, p(y | x)) - E_x\, H(p(y | x)))

    It lies between 1 and the number of classes. The state is one sum of probabilities and one of entropies per split, and
    one clip. With several splits clip k goes to split k mod S, and the value is the mean of their scores.

    Args:
        classifier: The network that gives class probabilities, or ``c3d:FILE``.
        splits: Number of splits S.
        device: Name of the device of a network that is loaded here.

    Raises:
        MissingWeights: if the network is missing.
        ValueError: if what it gives are no probabilities.

    Source: Salimans et al. 2016; for videos with C3D, Saito et al. 2020 (TGANv2).
    """

    name = "is"
    about = "Whether the videos show clear and various actions, as a set; meaningful for hundreds of clips."
    over_a_set = True

    def __init__(
        self, *, classifier: str | ClipNetwork | None = None, splits: int = 1, device: str | None = None
    ) -> None:
        if classifier is None:
            raise MissingWeights(f"the metric 'is' needs a classifier: is.classifier=c3d:FILE with {C3D}")
        if splits < 1:
            raise ValueError(f"splits must be at least 1; got {splits}")
        self.network = _load(classifier, device) if isinstance(classifier, str) else classifier
        self.num_splits, self.count = splits, 0
        self._sums: list[Tensor | None] = [None] * splits
        self._entropies, self._counts = [0.0] * splits, [0] * splits
        self._clips = Clips(self.network.clip_frames)
        self._size: tuple[int, int] | None = None

    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        for clip in self._clips.add(frames.float()):
            self.add_probabilities(self.network(clip))

    def add_probabilities(self, probabilities: Tensor) -> None:
        """Take the class probabilities ``(N, classes)`` of N further clips.

        Raises:
            ValueError: if a row is negative or does not sum to one.
        """
        probabilities = probabilities.detach().double().cpu()
        if probabilities.ndim != 2 or probabilities.min() < 0 or (probabilities.sum(1) - 1).abs().max() > 1e-3:
            raise ValueError(f"expected class probabilities (N, classes); {self.network.name} gave other numbers")
        for row in probabilities:
            split = self.count % self.num_splits
            before = self._sums[split]
            self._sums[split] = row.clone() if before is None else before + row
            self._entropies[split] += _entropy(row)
            self._counts[split] += 1
            self.count += 1

    def end_video(self) -> None:
        """The next frame begins another video, of any size; frames that make no whole clip are left out."""
        self._clips.drop()
        self._size = None

    def compute(self) -> MetricResult:
        details: dict[str, float | str] = {"clips": self.count, "splits": self.num_splits}
        length = self.network.clip_frames
        if self.count < self.num_splits:
            note = f"it takes a clip of {length} frames for each of {self.num_splits} splits; got {self.count}"
            return MetricResult(self.name, None, True, details=details, note=note)
        scores = []
        for total, entropies, count in zip(self._sums, self._entropies, self._counts, strict=True):
            assert total is not None
            scores.append(float(torch.tensor(_entropy(total / count) - entropies / count).exp()))
        details |= {"standard deviation over splits": pstdev(scores), "classes": len(self._sums[0])}  # type: ignore
        note = f"{self.network.name}, clips of {length} frames"
        return MetricResult(self.name, fmean(scores), True, details=details, note=note)


def _entropy(probabilities: Tensor) -> float:
    return float(torch.special.entr(probabilities).sum())


@lru_cache(maxsize=1)
def _load(classifier: str, device: str | None) -> ClipNetwork:
    kind, _, path = classifier.partition(":")
    if kind != "c3d" or not path:
        raise ValueError(f"expected is.classifier=c3d:FILE; got {classifier!r}")
    return C3DProbabilities(path, device=device)
