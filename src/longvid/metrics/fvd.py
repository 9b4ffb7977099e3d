"""FVD: how far a set of videos lies from real ones, in the features of a network that knows motion."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, MissingWeights, check_frames
from longvid.metrics.frechet import RunningMoments, frechet_distance
from longvid.metrics.video_features import I3D, VIDEOMAE, ClipNetwork, Clips, load_features
from longvid.video.io import VideoReader, read_video

FEATURES = f"fvd.features=i3d:FILE with {I3D}, or fvd.features=videomae:FOLDER with {VIDEOMAE}"
REFERENCE = (
    "fvd.reference=PATH, real videos to compare with: a video, a folder of videos, or saved moments (.safetensors)"
)


class FVD(Metric):
    """Fréchet video distance between all whole clips seen and reference videos.

    Clips of the network's length are cut from each video one after another, without overlap. Means and covariances are
    gathered clip by clip; the state is O(D^2) and one clip. The distance is biased upwards where clips are few: papers
    take 2,048 or more, and numbers from other counts, lengths or frame rates are not comparable.

    Args:
        features: The network, or ``i3d:FILE`` or ``videomae:FOLDER``.
        reference: The reference: moments, the file of saved ones, a video or a folder of videos.
        device: Name of the device of a network that is loaded here.

    Raises:
        MissingWeights: if the network or the reference is missing.
        ValueError: if the reference is damaged, or no whole clip is in it.

    Source: Unterthiner et al. 2019.
    """

    name = "fvd"
    about = "How far the videos lie from real ones as a set; meaningful for hundreds of clips, not for one video."
    over_a_set = True

    def __init__(
        self,
        *,
        features: str | ClipNetwork | None = None,
        reference: str | os.PathLike[str] | RunningMoments | None = None,
        device: str | None = None,
    ) -> None:
        if features is None:
            raise MissingWeights(f"the metric 'fvd' needs a network: {FEATURES}")
        if reference is None:
            raise MissingWeights(f"the metric 'fvd' needs {REFERENCE}")
        self.network = load_features(features, device) if isinstance(features, str) else features
        self.reference = (
            reference if isinstance(reference, RunningMoments) else _load_reference(reference, self.network)
        )
        self.moments = RunningMoments()
        self._clips = Clips(self.network.clip_frames)
        self._size: tuple[int, int] | None = None

    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        for clip in self._clips.add(frames.float()):
            self.moments.update(self.network(clip))

    def end_video(self) -> None:
        """The next frame begins another video, of any size; frames that make no whole clip are left out."""
        self._clips.drop()
        self._size = None

    def compute(self) -> MetricResult:
        details: dict[str, float | str] = {"clips": self.moments.count, "reference clips": self.reference.count}
        length = self.network.clip_frames
        if self.moments.count < 2 or self.reference.count < 2:
            note = f"it takes two clips of {length} frames or more on either side"
            return MetricResult(self.name, None, False, details=details, note=note)
        note = f"{self.network.name}, clips of {length} frames"
        if min(self.moments.count, self.reference.count) < len(self.moments.mean):
            note += f"; biased upwards: fewer clips than the {len(self.moments.mean)} features"
        value = frechet_distance(self.moments, self.reference)
        return MetricResult(self.name, value, False, details=details, note=note)


def gather_moments(videos: Iterable[Iterable[Tensor]], network: ClipNetwork) -> RunningMoments:
    """The moments of all whole clips of videos, each an iterable of frames ``(3, H, W)`` in [0, 1].

    Raises:
        ValueError: if no video has a whole clip.
    """
    moments = RunningMoments()
    for video in videos:
        clips = Clips(network.clip_frames)
        for frame in video:
            for clip in clips.add(frame[None].float()):
                moments.update(network(clip))
    if not moments.count:
        raise ValueError(f"expected videos of at least {network.clip_frames} frames; none has a whole clip")
    return moments


def reference_videos(path: str | os.PathLike[str]) -> list[VideoReader]:
    """The videos at a path: one file, one folder of PNGs, or a folder of such.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"there are no videos at {path}")
    if path.is_file() or any(part.suffix.lower() == ".png" for part in path.iterdir()):
        return [read_video(path)]
    parts = sorted(part for part in path.iterdir() if part.is_dir() or part.suffix.lower() in VideoReader.SUFFIXES)
    if not parts:
        raise ValueError(f"the folder {path} holds no videos")
    return [read_video(part) for part in parts]


@lru_cache(maxsize=1)
def _load_reference(path: str | os.PathLike[str], network: ClipNetwork) -> RunningMoments:
    if not Path(path).expanduser().exists():
        raise MissingWeights(
            f"the metric 'fvd': there is nothing at fvd.reference={os.fspath(path)!r}; it must be {REFERENCE}"
        )
    if Path(path).suffix == ".safetensors":
        return RunningMoments.load(Path(path).expanduser())
    return gather_moments(reference_videos(path), network)
