"""Re-identification score: do the faces of one frame come back in the next?"""

from __future__ import annotations

import os
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.weights import need_file, need_package

DETECTOR = "the face detector YuNet of the OpenCV zoo (face_detection_yunet_2023mar.onnx)"
RECOGNIZER = "the face recogniser SFace of the OpenCV zoo (face_recognition_sface_2021dec.onnx)"


class FaceEmbedder(Protocol):
    """Finds faces and describes each by a vector; the same person gives vectors of nearly the same direction.

    Attributes:
        name: What it is, for the results.
    """

    name: str

    def __call__(self, frame: Tensor) -> Tensor:
        """Features ``(n, D)`` of the n faces, none perhaps, in a frame ``(3, H, W)`` in [0, 1]."""
        ...


class OpenCVFaces:
    """YuNet finds the faces and SFace describes them, both run by OpenCV from their ONNX files.

    Args:
        detector: File of YuNet.
        recognizer: File of SFace.
        threshold: Lowest certainty of a face, in [0, 1].

    Raises:
        MissingWeights: if OpenCV or a file is not there.
        ValueError: if OpenCV cannot read a file.
    """

    def __init__(
        self,
        detector: str | os.PathLike[str] | None,
        recognizer: str | os.PathLike[str] | None,
        *,
        threshold: float = 0.9,
    ) -> None:
        self.name = "YuNet + SFace"
        what = "the metric 're_id'"
        found = need_file(detector, what=what, option="re_id.detector", file=DETECTOR)
        known = need_file(recognizer, what=what, option="re_id.recognizer", file=RECOGNIZER)
        self._cv2 = need_package("cv2", what)
        try:
            self._detector: Any = self._cv2.FaceDetectorYN.create(str(found), "", (320, 320), threshold)
            self._recognizer: Any = self._cv2.FaceRecognizerSF.create(str(known), "")
        except self._cv2.error as error:
            raise ValueError(f"OpenCV cannot read {found} or {known}: {str(error).splitlines()[0]}") from error

    def __call__(self, frame: Tensor) -> Tensor:
        """Features ``(n, 128)`` of the faces in a frame ``(3, H, W)`` in [0, 1]."""
        image = (frame.float() * 255).round().byte().permute(1, 2, 0).flip(-1).contiguous().cpu().numpy()
        self._detector.setInputSize((image.shape[1], image.shape[0]))
        _, faces = self._detector.detect(image)
        if faces is None:
            return torch.empty(0, 128)
        read = [self._recognizer.feature(self._recognizer.alignCrop(image, face)).copy() for face in faces]
        return torch.stack([torch.from_numpy(features[0]) for features in read])


class ReIdentification(Metric):
    r"""Re-identification score of StreamingT2V: how surely a face of one frame is found again in the next.

    .. math::
        \mathrm{re\text{-}id}(n) = \max_{i, j} \cos \Theta(F_i^n, F_j^{n+1}) \text{ if both frames have faces, else } 0,
        \qquad \mathrm{re\text{-}id} = \frac{1}{m} \sum_{n=1}^{N-1} \mathrm{re\text{-}id}(n)

    with m, as printed, the number of frames that have faces. N frames of one unchanging face therefore give (N-1)/N.
    The paper's words are of the mean over pairs whose two frames both have faces: that is ``details["mean over pairs"]``.
    One number per step and the features of one frame are kept. StreamingT2V prints 100 times the score.

    Args:
        faces: What finds and describes faces; else the two files are read.
        detector: File of YuNet, for :class:`OpenCVFaces`.
        recognizer: File of SFace, for :class:`OpenCVFaces`.

    Raises:
        MissingWeights: if no embedder was given and a file or OpenCV is not there.

    Source: StreamingT2V (arXiv:2403.14773), Eq. 11 and 12; the paper took FaceNet and its detector (Schroff et al. 2015).
    """

    name = "re_id"
    about = "How surely a face of one frame is found again in the next one; 1 is the same face throughout."

    def __init__(
        self,
        *,
        faces: FaceEmbedder | None = None,
        detector: str | os.PathLike[str] | None = None,
        recognizer: str | os.PathLike[str] | None = None,
    ) -> None:
        self.faces = faces or OpenCVFaces(detector, recognizer)
        self._size: tuple[int, int] | None = None
        self._last: Tensor | None = None
        self._num_frames = self._with_faces = self._pairs = 0
        self._scores: list[float] = []

    @torch.no_grad()
    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        for frame in frames:
            features = F.normalize(self.faces(frame).float(), dim=-1)
            if self._last is not None:
                both = bool(len(features) and len(self._last))
                self._scores.append(float((self._last @ features.T).max()) if both else 0.0)
                self._pairs += both
            self._num_frames += 1
            self._with_faces += bool(len(features))
            self._last = features

    def compute(self) -> MetricResult:
        details: dict[str, float | str] = {"frames with faces": self._with_faces, "frames": self._num_frames}
        if not self._pairs:
            note = "no two neighbouring frames have faces"
            return MetricResult(self.name, None, True, "cosine", details=details, note=note)
        details["mean over pairs"] = sum(self._scores) / self._pairs
        value = sum(self._scores) / self._with_faces
        return MetricResult(
            self.name, value, True, "cosine", tuple(self._scores), 1, details, f"faces: {self.faces.name}"
        )
