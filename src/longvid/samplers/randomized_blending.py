"""Randomized blending: a predictor of short clips becomes one of a whole video, joined anew at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

from longvid.video.windows import Window

from .processes import ALONE, Processes

Predict: TypeAlias = Callable[[torch.Tensor, Any], torch.Tensor]
Cut: TypeAlias = Callable[[int, torch.Generator | None], int]
Empty: TypeAlias = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]
Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


def paper_cut(overlap: int, generator: torch.Generator | None = None) -> int:
    r"""Draw a cut from {0, ..., O}, as the paper says.

    The window before keeps overlap frame :math:`j = 1 \dots O` with probability :math:`1 - j / (O + 1)`.

    Args:
        overlap: O, the frames that two windows share.
        generator: Source of the draw; None takes torch's global one.

    Source: StreamingT2V, Sec. 4.3 (arXiv:2403.14773).
    """
    return _draw(overlap + 1, generator)


def released_cut(overlap: int, generator: torch.Generator | None = None) -> int:
    r"""Draw a cut from {0, ..., O - 1}, as the authors' released code does.

    The window before keeps overlap frame :math:`j = 1 \dots O` with probability :math:`1 - j / O`: the last one always
    comes from the window behind.

    Args:
        overlap: O, the frames that two windows share.
        generator: Source of the draw; None takes torch's global one.
    """
    return _draw(overlap, generator)


def whole_cut(overlap: int, generator: torch.Generator | None = None) -> int:
    """Give O itself: the window before keeps the whole overlap, and nothing is drawn.

    Args:
        overlap: O, the frames that two windows share.
        generator: Not used.
    """
    return overlap


def blended(
    predict: Predict | Sequence[Predict],
    windows: Sequence[Window],
    generator: Generators = None,
    *,
    cut: Cut = paper_cut,
    device: torch.device | str | None = None,
    empty: Empty | None = None,
    processes: Processes = ALONE,
) -> Predict:
    r"""Predict overlapping windows of a video one by one and join neighbours at a random frame of their overlap.

    With :math:`P_k` the prediction for window k and a cut :math:`f_k` drawn for each border at each call,

    .. math:: P = \mathrm{concat}\big(P_{k-1}[1 : F - O + f_k],\; P_k[f_k + 1 : F]\big),

    so the first :math:`f_k` shared frames keep the window before and the others take the window behind. Every update of
    the whole video in which frames do not mix (that of any diffusers scheduler without thresholding) commutes with
    this choice: to blend the prediction, x0 or :math:`x_{t-1}` is the same. Noise that is drawn for the whole video is
    shared noise (Eq. 7) by construction.

    Args:
        predict: `predict(sample, timestep) -> prediction`, one prediction per frame: a network, a guided one, any
            wrapper. Statistics inside it, such as guidance rescale, are those of one window. A sequence has one for each
            window, where windows are predicted under conditions of their own.
        windows: They cover the video from frame 0 without a gap and end with it, as `fit_windows` lays them out.
        generator: The only source of the cuts: one for the batch, or one per video, whose cuts then do not depend on
            its neighbours. Cuts are drawn from the first border to the last.
        cut: `cut(overlap, generator) -> f` in [0, overlap]: `paper_cut`, `released_cut` or your own. A constant one is
            plain concatenation of predictions under shared noise.
        device: Where `predict` works. Each window is moved there, and its prediction back to where the sample is: a
            video may lie in host memory with one window at a time on a GPU. None moves nothing.
        empty: `empty(shape, dtype)` gives the tensor that the prediction of the whole video is put into, on the device
            of the sample; by default an ordinary one.
        processes: Who predicts the windows. Several processes take turns, draw the same cuts from equal generators, and
            all end with the bits that one has. Every process needs the whole prediction, as each makes the step of the
            scheduler; frames that a cut leaves to the neighbour do not travel. Of N frames with predictions of b bytes
            each, N (P - 1) b bytes travel per call (for a batch with cuts of its own for each video, up to all
            overlaps more).

    Shapes:
        sample (B, C, N, h, w) with N = `windows[-1].stop`, timestep () or (B,) -> prediction (B, C', N, h, w), in the
        dtype that `predict` returns and on the device of the sample.

    Raises:
        ValueError: if the windows leave a gap or reach behind the end, or there is not one predictor for each; when
            called, if the sample has another number of frames, `predict` another number than its window, or a cut lies
            outside its overlap.
    Source: StreamingT2V, Sec. 4.3, Eq. 7 and 8 (arXiv:2403.14773). Eq. 8 as printed has the wrong length unless
        f = O / 2; the form above is the consistent reading, and what the authors' code computes.
    """
    num_frames = _check_windows(windows)
    predictors = [predict] * len(windows) if callable(predict) else list(predict)
    if len(predictors) != len(windows):
        raise ValueError(f"expected one predictor for each of {len(windows)} windows; got {len(predictors)}")

    def predict_video(sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        if sample.ndim != 5 or sample.shape[2] != num_frames:
            raise ValueError(f"expected a sample (B, C, {num_frames}, h, w) for these windows; got {_shape(sample)}")
        generators = per_video(generator, sample.shape[0])
        if device is not None and torch.is_tensor(timestep):
            timestep = timestep.to(device)
        cuts = [[checked_cut(cut, window.overlap, each) for each in generators] for window in windows]
        kept = _kept(windows, cuts)

        def part_of(number: int) -> torch.Tensor:
            window, part = windows[number], sample[:, :, windows[number].frames]
            part = predictors[number](part if device is None else part.to(device), timestep)
            if part.ndim != 5 or part.shape[2] != window.stop - window.start:
                raise ValueError(f"expected {window.stop - window.start} predicted frames; got shape {_shape(part)}")
            return part[:, :, kept[number].start - window.start : kept[number].stop - window.start]

        whole = None
        parts = processes.spread([partial(part_of, number) for number in range(len(windows))])
        for window, frames, firsts, part in zip(windows, kept, cuts, parts, strict=True):
            whole = _empty_video(part, num_frames, sample.device, empty) if whole is None else whole
            for index, first in enumerate(firsts):
                rows = slice(index, index + 1) if len(generators) > 1 else slice(None)
                begin = min(window.start + first, frames.stop)
                whole[rows, :, begin : frames.stop] = part[rows, :, begin - frames.start :]
        assert whole is not None  # there is at least one window
        return whole

    return predict_video


def _kept(windows: Sequence[Window], cuts: Sequence[Sequence[int]]) -> list[slice]:
    """Frames of the video that each window's prediction is used for, in any video of the batch."""
    kept, ends = [], [windows[-1].stop] * len(cuts[0])
    for window, firsts in zip(reversed(windows), reversed(cuts), strict=True):
        begins = [window.start + first for first in firsts]
        kept.append(slice(min(begins), max(min(begins), *ends)))
        ends = [min(pair) for pair in zip(begins, ends, strict=True)]
    return kept[::-1]


def _empty_video(part: torch.Tensor, num_frames: int, device: torch.device, empty: Empty | None) -> torch.Tensor:
    shape = (*part.shape[:2], num_frames, *part.shape[3:])
    return torch.empty(shape, dtype=part.dtype, device=device) if empty is None else empty(shape, part.dtype)


def _draw(count: int, generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(count, (1,), generator=generator, device=device).item())


def checked_cut(cut: Cut, overlap: int, generator: torch.Generator | None) -> int:
    """Draw a cut; where nothing overlaps there is no border to draw for.

    Raises:
        ValueError: if it lies outside of the overlap.
    """
    if overlap == 0:
        return 0
    first = cut(overlap, generator)
    if not 0 <= first <= overlap:
        raise ValueError(f"a cut must lie in [0, {overlap}], the overlap; got {first}")
    return first


def _check_windows(windows: Sequence[Window]) -> int:
    """Return the number of frames that the windows cover."""
    end = 0
    for window in windows:
        if window.excess or window.start + window.overlap != end or window.stop <= end or window.start < 0:
            raise ValueError(
                f"expected windows inside the video, each new from frame {end} on, as fit_windows gives; got {window}"
            )
        end = window.stop
    if not end:
        raise ValueError("expected at least one window; got none")
    return end


def per_video(generator: Generators, batch: int) -> Sequence[torch.Generator | None]:
    """List one generator for the whole batch, or one per video.

    Raises:
        ValueError: if there are as many generators as neither.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return [generator]
    if len(generator) != batch:
        raise ValueError(f"expected one generator per video, {batch} in all; got {len(generator)}")
    return list(generator)


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
