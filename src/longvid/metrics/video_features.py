"""Networks that read a clip: I3D and VideoMAE for FVD, C3D for the inception score; any other can take their place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.metrics.base import MissingWeights
from longvid.metrics.weights import need_file, usable_device, without_bars

I3D = "the I3D network of StyleGAN-V (i3d_torchscript.pt)"
C3D = "the C3D network of StyleGAN-V (c3d_ucf101.pt)"
VIDEOMAE = "a folder of transformers' VideoMAE, such as a copy of MCG-NJU/videomae-base-finetuned-kinetics"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClipNetwork(Protocol):
    """Reads clips of a fixed number of frames.

    Attributes:
        name: What it is, for the results.
        clip_frames: Frames of a clip.
    """

    name: str
    clip_frames: int

    def __call__(self, clips: Tensor) -> Tensor:
        """``(B, D)``, features or class probabilities, of clips ``(B, 3, F, H, W)`` in [0, 1]."""
        ...


class I3DFeatures:
    """The 400 outputs of I3D before its softmax, from a TorchScript file, as most papers since 2022 compute FVD.

    Clips are resized to 224 x 224 (bilinear, whole frame) and scaled to [-1, 1]. **A TorchScript file is a program**: only
    a file that the caller names is opened; take it from someone you trust.

    Args:
        path: The file.
        device: Name of the device.
        clip_frames: Frames of a clip; 16 is usual.

    Raises:
        MissingWeights: if there is no file.
        ValueError: if it is not TorchScript.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str | None = None, clip_frames: int = 16) -> None:
        self.name, self.clip_frames, self.device = f"I3D {Path(path).name}", clip_frames, usable_device(device)
        self._network = load_script(path, self.device, what="FVD with I3D", option="fvd.features=i3d", file=I3D)
        flags = {"rescale": False, "resize": False, "return_features": True}
        known = {argument.name for argument in self._network.forward.schema.arguments}
        self._flags = {flag: value for flag, value in flags.items() if flag in known}

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """``(B, 400)`` of clips ``(B, 3, F, H, W)`` in [0, 1]."""
        pixels = resize_clips(clips.to(self.device), 224)
        return self._network(2 * pixels - 1, **self._flags).flatten(1).float()


class C3DProbabilities:
    """Class probabilities of C3D, trained on UCF-101, from a TorchScript file that takes pixels in [0, 255].

    **A TorchScript file is a program**: only a file that the caller names is opened.

    Args:
        path: The file.
        device: Name of the device.
        clip_frames: Frames of a clip.

    Raises:
        MissingWeights: if there is no file.
        ValueError: if it is not TorchScript.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str | None = None, clip_frames: int = 16) -> None:
        self.name, self.clip_frames, self.device = f"C3D {Path(path).name}", clip_frames, usable_device(device)
        self._network = load_script(path, self.device, what="the metric 'is'", option="is.classifier=c3d", file=C3D)

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """``(B, classes)`` of clips ``(B, 3, F, H, W)`` in [0, 1]."""
        return self._network((clips.to(self.device) * 255).round()).flatten(1).float()


class VideoMAEFeatures:
    """The mean over all tokens of VideoMAE's last layer, with the classifier's normalisation where the folder has one.

    Clips are resized to the model's size (bilinear, whole frame) and normalised as ImageNet's pictures.

    Args:
        folder: As `save_pretrained` writes it.
        device: Name of the device.

    Raises:
        MissingWeights: if the folder holds no VideoMAE.
    """

    def __init__(self, folder: str | os.PathLike[str], *, device: str | None = None) -> None:
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

        found = need_file(folder, what="FVD with VideoMAE", option="fvd.features=videomae", file=VIDEOMAE)
        self.device = usable_device(device)
        try:
            config: Any = VideoMAEConfig.from_pretrained(found)
            classifies = "VideoMAEForVideoClassification" in (config.architectures or [])
            kind: Any = VideoMAEForVideoClassification if classifies else VideoMAEModel
            with without_bars():
                model = kind.from_pretrained(found, dtype=torch.float32).eval().to(self.device)
        except (OSError, ValueError) as error:
            raise MissingWeights(f"{found} is not {VIDEOMAE}: {str(error).splitlines()[0]}") from error
        self._body, self._norm = (model.videomae, model.fc_norm) if classifies else (model, None)
        self.name, self.clip_frames, self.image_size = f"VideoMAE {found.name}", config.num_frames, config.image_size

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """``(B, D)`` of clips ``(B, 3, F, H, W)`` in [0, 1]."""
        pixels = resize_clips(clips.to(self.device), self.image_size)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        tokens = self._body(((pixels - mean) / std).transpose(1, 2)).last_hidden_state.mean(1)
        return tokens if self._norm is None else self._norm(tokens)


def load_script(path: str | os.PathLike[str], device: torch.device, *, what: str, option: str, file: str) -> Any:
    """The network in a TorchScript file.

    Raises:
        MissingWeights: if there is none.
        ValueError: if it is not TorchScript.
    """
    found = need_file(path, what=what, option=option, file=file)
    try:
        return torch.jit.load(str(found), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{found} is not a TorchScript file: {str(error).splitlines()[0]}") from error


@lru_cache(maxsize=1)
def load_features(features: str, device: str | None = None) -> ClipNetwork:
    """``i3d:FILE`` or ``videomae:FOLDER``; the last one stays loaded.

    Raises:
        MissingWeights: if the file or folder is not there.
        ValueError: for another word.
    """
    kind, _, path = features.partition(":")
    if kind == "i3d" and path:
        return I3DFeatures(path, device=device)
    if kind == "videomae" and path:
        return VideoMAEFeatures(path, device=device)
    raise ValueError(f"expected fvd.features=i3d:FILE or videomae:FOLDER; got {features!r}")


class Clips:
    """Frames as they come, handed out as whole clips that do not overlap; at most one clip is kept.

    Args:
        clip_frames: Frames of a clip.
    """

    def __init__(self, clip_frames: int) -> None:
        self.clip_frames = clip_frames
        self._kept: Tensor | None = None

    def add(self, frames: Tensor) -> Iterator[Tensor]:
        """Take frames ``(F, 3, H, W)`` and give clips ``(1, 3, clip_frames, H, W)``."""
        frames = frames if self._kept is None else torch.cat([self._kept, frames])
        whole = len(frames) // self.clip_frames * self.clip_frames
        for clip in frames[:whole].split(self.clip_frames):
            if len(clip):
                yield clip.transpose(0, 1)[None]
        self._kept = frames[whole:].clone()

    def drop(self) -> None:
        """Forget frames that make no whole clip: the next frame begins another video."""
        self._kept = None


def resize_clips(clips: Tensor, size: int) -> Tensor:
    """Clips ``(B, 3, F, H, W)`` with every frame at `size` x `size` (bilinear)."""
    if clips.shape[-2:] == (size, size):
        return clips
    batch = len(clips)
    frames = clips.transpose(1, 2).flatten(0, 1)
    frames = F.interpolate(frames, size=(size, size), mode="bilinear", align_corners=False)
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)
