"""Optical flow, injectable: RAFT where its weights are at hand, OpenCV's DIS otherwise."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from longvid.metrics.base import MissingWeights, check_frames

PAPER_SIZE = (720, 720)
RAFT_FILE = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"


class Flow(Protocol):
    """Where each pixel of one frame goes in another: a function of two frames ``(3, H, W)`` in [0, 1].

    It returns ``(2, H, W)`` in pixels, x (to the right) before y (down): pixel p of `a` is found at p + flow(p) in `b`.
    An attribute `name` says what it is; a plain function goes by its own name.
    """

    def __call__(self, a: Tensor, b: Tensor, /) -> Tensor: ...


class DISFlow:
    """OpenCV's dense inverse search, preset medium: no weights, some 10 ms for a small frame.

    Frames below 16 pixels are continued by their edge for the search. DIS sees grey only.

    Raises:
        MissingWeights: if OpenCV is not installed.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (ECCV 2016).
    """

    name = "OpenCV DIS"

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingWeights('optical flow needs OpenCV: pip install "longvid[metrics]"') from error
        self._cv2 = cv2

    def __call__(self, a: Tensor, b: Tensor, /) -> Tensor:
        height, width = check_frames(a[None])
        check_frames(b[None], (height, width))
        # made anew each time: the object keeps buffers of the last call, and a result must not depend on it
        search: Any = self._cv2.DISOpticalFlow.create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow = torch.from_numpy(search.calc(self._grey(a), self._grey(b), None))
        return flow[:height, :width].permute(2, 0, 1).contiguous()

    def _grey(self, frame: Tensor) -> Any:
        rgb = (frame.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        grey = self._cv2.cvtColor(rgb, self._cv2.COLOR_RGB2GRAY)
        below, right = max(0, 16 - grey.shape[0]), max(0, 16 - grey.shape[1])
        return self._cv2.copyMakeBorder(grey, 0, below, 0, right, self._cv2.BORDER_REPLICATE)


class RAFTFlow:
    """torchvision's RAFT (large), the flow of StreamingT2V's own measurements.

    Sizes that are no multiple of 8, or below 128, are continued by their edge for the network. Nothing is downloaded.

    Args:
        weights: The file, ``.pth`` or ``.safetensors``; by default torchvision's, if it lies in torch's hub cache.
        device: Where the network runs.

    Raises:
        MissingWeights: if the file or torchvision is missing.
        ValueError: if the file holds something else.

    Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow" (ECCV 2020).
    """

    name = "RAFT large"

    def __init__(self, weights: str | os.PathLike[str] | None = None, *, device: str = "cpu") -> None:
        path = Path(weights) if weights else raft_cache()
        if not path.is_file():
            raise MissingWeights(
                f"RAFT needs the file {path}; it comes from https://download.pytorch.org/models/{RAFT_FILE}"
            )
        try:
            from torchvision.models.optical_flow import raft_large
        except ImportError as error:
            raise MissingWeights('RAFT needs torchvision: pip install "longvid[metrics]"') from error
        network = raft_large(weights=None, progress=False)
        try:
            network.load_state_dict(_read_weights(path))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not hold the weights of torchvision's raft_large") from error
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor, /) -> Tensor:
        height, width = check_frames(a[None])
        check_frames(b[None], (height, width))
        right, below = (max(128, -(-length // 8) * 8) - length for length in (width, height))
        frames = torch.stack([a, b]).float().to(self._device) * 2 - 1
        first, second = pad(frames, (0, right, 0, below), mode="replicate").split(1)
        return self._network(first, second)[-1][0, :, :height, :width].cpu()


def raft_cache() -> Path:
    """Where torchvision keeps RAFT's weights once it has downloaded them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / RAFT_FILE


def make_flow(
    name: str | None = None, *, weights: str | os.PathLike[str] | None = None, device: str = "cpu"
) -> DISFlow | RAFTFlow:
    """The flow called `name`, ``"raft"`` or ``"dis"``; by default RAFT where its weights are, and DIS otherwise.

    Raises:
        ValueError: for another name, or weights for DIS.
        MissingWeights: if a file or a package that it needs is missing.
    """
    if name not in (None, "raft", "dis"):
        raise ValueError(f"the optical flow must be 'raft' or 'dis'; got {name!r}")
    if name == "dis" and weights:
        raise ValueError(f"DIS takes no weights; got {weights}")
    if name == "raft" or weights or (name is None and raft_cache().is_file()):
        return RAFTFlow(weights, device=device)
    return DISFlow()


class SharedFlow:
    """A flow that remembers its last results, so that several metrics share one computation.

    Args:
        flow: The flow that is asked.
        capacity: Number of pairs of frames that are remembered.

    Raises:
        ValueError: when asked, if the answer of the flow has another shape than ``(2, H, W)``.
    """

    def __init__(self, flow: Flow, *, capacity: int = 2) -> None:
        self._flow, self.name = flow, flow_name(flow)
        self._recent: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=capacity)

    def __call__(self, a: Tensor, b: Tensor, /) -> Tensor:
        for first, second, flow in self._recent:
            if torch.equal(first, a) and torch.equal(second, b):
                return flow
        flow = self._flow(a, b).float()
        if flow.shape != (2, *a.shape[1:]):
            expected = (2, *a.shape[1:])
            raise ValueError(f"the optical flow {self.name} must answer with {expected}; got {tuple(flow.shape)}")
        self._recent.append((a, b, flow))
        return flow


def flow_name(flow: Flow) -> str:
    """What a flow calls itself."""
    return getattr(flow, "name", None) or getattr(flow, "__name__", None) or type(flow).__name__


class FramePairs:
    """Neighbouring frames one after another, resized (bilinear, the aspect ratio ignored); keeps one frame.

    Args:
        size: Height and width the frames are resized to; None leaves them as they are.
    """

    def __init__(self, size: tuple[int, int] | None = PAPER_SIZE) -> None:
        if size is not None and min(size) < 1:
            raise ValueError(f"size must be a height and a width of at least 1, or None; got {size}")
        self.size = size
        self._read_size: tuple[int, int] | None = None
        self._last: Tensor | None = None

    def __call__(self, frames: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs that end in one of `frames` ``(F, 3, H, W)``: two tensors ``(3, h, w)`` each."""
        self._read_size = check_frames(frames, self._read_size)
        for frame in frames.detach().float().split(1):
            if self.size not in (None, self._read_size):
                frame = interpolate(frame, self.size, mode="bilinear", align_corners=False).clamp(0, 1)
            before, self._last = self._last, frame[0].clone()
            if before is not None:
                yield before, self._last

    def describe(self) -> str:
        """The size in words."""
        return "at the video's own size" if self.size is None else f"at {self.size[0]} x {self.size[1]} pixels"


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    from pickle import UnpicklingError

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} is damaged or holds more than weights") from error
