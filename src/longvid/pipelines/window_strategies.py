"""How a video that is longer than a network's window is made: window after window, or all windows together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longvid.pipelines.latent_places import OnDevice
from longvid.samplers.continuing import check_context_noise, continued
from longvid.samplers.guidance import Predict
from longvid.samplers.processes import ALONE, Processes, windows_or_branches
from longvid.samplers.randomized_blending import Cut, blended, paper_cut, whole_cut
from longvid.video.windows import Window, fit_windows, plan_windows

MG_SCOPES = ("window", "video")


@dataclass(frozen=True)
class Joining:
    """What a strategy joins the predictions of windows with.

    Attributes:
        clip: Gives the predictor of the frames of one window; as a second argument it takes the processes that share
            the branches of its guidance.
        mitigate: Wraps a predictor in mitigating gradient sampling.
        size: Frames per window.
        overlap: Frames that neighbours share.
        scheduler: The sampler at work.
        generator: The source of the cuts, one or one per video.
        known: Clean latents of the frames that the window begins with, or None.
        noise: The noise that those were made from.
        place: Where what is denoised together lies.
        processes: Who evaluates the networks.
    """

    clip: Callable[..., Predict]
    mitigate: Callable[[Predict], Predict]
    size: int
    overlap: int
    scheduler: Any
    generator: torch.Generator | list[torch.Generator]
    known: Tensor | None = None
    noise: Tensor | None = None
    place: OnDevice | None = None
    processes: Processes = ALONE


class WindowStrategy(ABC):
    """Lays windows out and joins their predictions.

    Attributes:
        on_host: Whether what is denoised together is a whole video, which then lies in host memory.
    """

    on_host: ClassVar[bool] = False

    @abstractmethod
    def plan(self, num_frames: int | float, *, size: int, overlap: int) -> Sequence[Window]:
        """Lay out what is denoised together, one chunk of the stream each."""

    @abstractmethod
    def predictor(self, window: Window, joining: Joining) -> Predict:
        """Give the predictor of one of those windows."""


@dataclass(frozen=True)
class Streamed(WindowStrategy):
    """One window after another, in the memory of one window, at any length.

    The first frames of a window are those that the window before ended with. At every step they are held, noised to
    the step, up to a frame that is drawn anew; see `continued`. The mitigating gradient acts on the window with them.

    Args:
        cut: Draws where the one window becomes the other, `cut(overlap, generator) -> f`.
        context_noise: Share of the step's timestep that the held frames are noised to. Below 1, a window sees what it
            goes on from while it is being decided what is where; networks are not trained on that by themselves.

    Raises:
        ValueError: for a share outside of [0, 1].
    """

    cut: Cut = paper_cut
    context_noise: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        check_context_noise(self.context_noise)

    def plan(self, num_frames: int | float, *, size: int, overlap: int) -> Sequence[Window]:
        """Windows of `size` frames, the last one cut; a shorter video is one window of its length."""
        size = int(min(size, num_frames))
        return plan_windows(num_frames, size, min(overlap, size - 1))

    def predictor(self, window: Window, joining: Joining) -> Predict:
        """The window's own predictor, continuing what is known."""
        predict = joining.clip(window, joining.processes)
        if joining.known is not None and joining.noise is not None:
            predict = continued(
                predict,
                joining.known,
                joining.noise,
                joining.scheduler,
                joining.generator,
                cut=self.cut,
                context_noise=self.context_noise,
            )
        return joining.mitigate(predict)


@dataclass(frozen=True)
class Joint(WindowStrategy):
    """All windows at every step, joined by randomized blending: the latents of the whole video are in host memory.

    Every window influences every other through the steps, and nothing is handed out before all is made. One window at a
    time is on the device.

    Args:
        cut: Draws where neighbours are joined.
        mg_scope: Where the mitigating gradient takes its median: in every "window", before they are joined, which makes
            it as strong as in a video of one window; or in the whole "video", which draws frames together across the
            joints but grows weaker with its length, by log(F - 1) / (F - 1), and needs memory for several further
            copies of its latents.

    Raises:
        ValueError: for another scope.
    """

    cut: Cut = paper_cut
    mg_scope: str = "window"
    on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown scope."""
        if self.mg_scope not in MG_SCOPES:
            raise ValueError(f"mg_scope must be one of {', '.join(MG_SCOPES)}; got {self.mg_scope!r}")

    def plan(self, num_frames: int | float, *, size: int, overlap: int) -> Sequence[Window]:
        """One window: the whole video."""
        return (Window(0, 0, int(num_frames), 0),)

    def predictor(self, window: Window, joining: Joining) -> Predict:
        """The predictors of all windows, blended."""
        size = min(joining.size, window.stop)
        windows = fit_windows(window.stop, size, min(joining.overlap, size - 1))
        across, within = windows_or_branches(joining.processes, len(windows))
        clips = [joining.clip(part, within) for part in windows]
        if self.mg_scope == "window":
            clips = [joining.mitigate(clip) for clip in clips]
        place = joining.place
        device, empty = (None, None) if place is None else (place.device, place.empty)
        predict = blended(clips, windows, joining.generator, cut=self.cut, device=device, empty=empty, processes=across)
        return joining.mitigate(predict) if self.mg_scope == "video" else predict


STRATEGIES: dict[str, WindowStrategy] = {
    "streamed": Streamed(),
    "held": Streamed(cut=whole_cut, context_noise=0.5),
    "joint": Joint(),
}
