"""The codecs a video file can be written with, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CONTAINERS = {".mp4": "mp4", ".webm": "webm", ".mkv": "matroska"}
DEFAULT_CODECS = {"mp4": "libx264", "webm": "libvpx-vp9", "matroska": "libx264"}


@dataclass(frozen=True)
class VideoCodec:
    """One encoder of FFmpeg.

    Attributes:
        containers: Containers that can hold it.
        options: Settings under which the encoder gives a frame back at once: nothing it was handed is lost if the
            process dies, and it holds no more than one frame.
        crf: Default constant rate factor and the largest one; None where the codec knows no such thing.
        even: Pixel format for even sizes, unless told.
        odd: Pixel format where height or width is odd, unless told.
    """

    containers: tuple[str, ...]
    options: dict[str, str]
    crf: tuple[int, int] | None
    even: str = "yuv420p"
    odd: str = "yuv444p"

    def pixel_format(self, height: int, width: int) -> str:
        """The pixel format that is used for frames of this size if none is named; it holds the size exactly."""
        return self.odd if height % 2 or width % 2 else self.even


_X264 = {"tune": "zerolatency"}
_VPX = {"deadline": "realtime", "cpu-used": "4", "lag-in-frames": "0"}
CODECS = {
    "libx264": VideoCodec(("mp4", "matroska"), _X264, crf=(18, 51)),
    "libx264rgb": VideoCodec(("mp4", "matroska"), _X264, crf=(18, 51), even="rgb24", odd="rgb24"),
    "libx265": VideoCodec(("mp4", "matroska"), {**_X264, "x265-params": "log-level=none"}, crf=(20, 51)),
    "libvpx-vp9": VideoCodec(("webm", "mp4", "matroska"), _VPX, crf=(24, 63), odd="yuv420p"),
    "libvpx": VideoCodec(("webm", "matroska"), _VPX, crf=(10, 63), odd="yuv420p"),
    "ffv1": VideoCodec(("matroska",), {}, crf=None, even="bgr0", odd="bgr0"),
}


def check_codec(container: str, codec: str | None, crf: float | None, pixel_format: str | None) -> str:
    """Return the name of the codec to use, if everything about it that does not depend on the frame size fits.

    Raises:
        ValueError: if the container cannot hold the codec, this build of FFmpeg lacks it, or `crf` or `pixel_format` is
            not one of its own; the message names those that are.
    """
    import av
    import av.codec.codec

    fitting = [name for name, known in CODECS.items() if container in known.containers]
    name = codec or DEFAULT_CODECS[container]
    if name not in fitting:
        raise ValueError(f"codec must be one of {', '.join(fitting)} for {container}; got {codec!r}")
    try:
        encoder = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise ValueError(f"the installed PyAV was built without the codec {name}") from error
    limits = CODECS[name].crf
    if crf is not None and limits is None:
        raise ValueError(f"codec {name} takes no crf; got crf={crf}")
    if crf is not None and limits is not None and not 0 <= crf <= limits[1]:
        raise ValueError(f"crf must lie in [0, {limits[1]}] for {name}; got {crf}")
    pixel_formats = [known.name for known in encoder.video_formats or []]
    if pixel_format is not None and pixel_format not in pixel_formats:
        raise ValueError(f"pixel_format must be one of {', '.join(pixel_formats)} for {name}; got {pixel_format!r}")
    return name


def is_lossless(codec: str | None, pixel_format: str | None) -> bool:
    """Whether 8-bit RGB frames come out of a file as they went in, and the file tells: FFV1 in an RGB format."""
    return codec == "ffv1" and (pixel_format is None or pixel_format.startswith(("bgr", "gbr", "rgb")))


def encoder_options(codec: str, crf: float | None) -> dict[str, str]:
    """The options FFmpeg's encoder is opened with."""
    known = CODECS[codec]
    return known.options if known.crf is None else {**known.options, "crf": f"{known.crf[0] if crf is None else crf:g}"}


def check_size(codec: str, pixel_format: str, height: int, width: int) -> None:
    """Refuse sizes that the codec could only hold rounded.

    Raises:
        ValueError: if the format shares its colours between neighbouring pixels, a size is odd, and the codec cannot
            hold that (VP8 and VP9 can).
    """
    import av

    if CODECS[codec].odd == "yuv420p" or not (height % 2 or width % 2):
        return
    planes: Any = av.VideoFormat(pixel_format, 4, 4)
    shared = [planes.components[1].width < 4 and width % 2, planes.components[1].height < 4 and height % 2]
    if any(shared):
        raise ValueError(
            f"{codec} with pixel_format={pixel_format!r} holds even sizes only; got {height} x {width} pixels: "
            f"pass pixel_format={CODECS[codec].odd!r}, or None to have it chosen"
        )
