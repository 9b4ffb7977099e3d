"""Files that frames are appended to, each playable up to the last frame at every moment: encoded video, GIF, PNGs."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from longvid.video.codecs import CODECS, CONTAINERS, check_codec, check_size, encoder_options
from longvid.video.muxing import FINISHED, mux, mux_fragment

logger = logging.getLogger(__name__)

FRAGMENT_FRAMES = 16  # frames that reach the file together; every write ends with a fragment
_FRAME_NAME = re.compile(r"\d{6,}\.png")


class EncodedFile:
    """An .mp4, .webm or .mkv file.

    PyAV is used directly because imageio's PyAV plugin hands no crf to the encoder, and because FFmpeg's muxers hold
    the newest frame back until the next one comes. Here every fragment is written by a muxer of its own that is closed
    at once, so after each `append` the file ends with the last frame. `close` copies the packets, without encoding
    them again, into an ordinary file with an index, and puts it in place of the fragmented one.
    """

    def __init__(
        self, path: Path, *, fps: Fraction, codec: str | None, crf: float | None, pixel_format: str | None
    ) -> None:
        self.path, self.fps, self.pixel_format = path, fps, pixel_format
        self.container = CONTAINERS[path.suffix.lower()]
        self.codec = check_codec(self.container, codec, crf, pixel_format)
        self.options = encoder_options(self.codec, crf)
        self._encoder: Any = None
        self._stream: Any = None
        self._file: Any = None
        self._num_frames = self._num_fragments = 0

    def append(self, frames: np.ndarray) -> None:
        """Encode uint8 frames ``(F, H, W, 3)`` and write them."""
        if self._encoder is None:
            self._open(*frames.shape[1:3])
        packets = (packet for frame in frames for packet in self._encode(frame))
        while fragment := list(islice(packets, FRAGMENT_FRAMES)):
            self._write_fragment(fragment)

    def close(self) -> None:
        """Finish the file; without a single frame there is no file, and what was at its path stays."""
        if self._encoder is None:
            return
        try:
            rest = self._stream.encode(None)
            if rest:
                self._write_fragment(rest)
        finally:
            self._file.close()
        self._finish()
        self._encoder.close()

    def _open(self, height: int, width: int) -> None:
        import av

        pixel_format = self.pixel_format or CODECS[self.codec].pixel_format(height, width)
        check_size(self.codec, pixel_format, height, width)
        # this container is never written: it opens the encoder with the flags that its format asks for
        encoder: Any = av.open(io.BytesIO(), "w", format=self.container)
        stream = encoder.add_stream(
            self.codec, rate=self.fps, options=dict(self.options), width=width, height=height, pix_fmt=pixel_format
        )
        stream.codec_context.time_base = 1 / self.fps
        stream.codec_context.thread_type = "SLICE"  # frame threads would hold frames back
        if pixel_format.startswith("yuv"):  # say what the conversion from RGB does, or players guess by the size
            stream.codec_context.colorspace = av.video.reformatter.Colorspace.SMPTE170M
            stream.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        try:
            encoder.start_encoding()
        except av.FFmpegError as error:
            raise ValueError(
                f"{self.codec} cannot encode height x width = {height} x {width} with pixel_format={pixel_format!r}: "
                f"{error.strerror}"
            ) from error
        self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115 (open until close)
        self._encoder, self._stream = encoder, stream

    def _encode(self, pixels: np.ndarray) -> Iterator[Any]:
        import av

        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = self._num_frames, 1 / self.fps
        self._num_frames += 1
        for packet in self._stream.encode(frame):
            packet.duration = 1
            yield packet

    def _write_fragment(self, packets: Iterable[Any]) -> None:
        number, template = self._num_fragments, self._stream
        fragment = mux_fragment(packets, number, container=self.container, fps=self.fps, template=template)
        data = memoryview(fragment)
        while data:
            data = data[self._file.write(data) :]
        self._num_fragments += 1

    def _finish(self) -> None:
        import av

        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            with av.open(str(self.path)) as source:
                stream = source.streams.video[0]
                packets = (self._with_duration(packet) for packet in source.demux(stream) if packet.size)
                options = FINISHED[self.container]
                mux(str(partial), packets, container=self.container, fps=self.fps, options=options, template=stream)
            os.replace(partial, self.path)
        except (OSError, av.FFmpegError) as error:  # a full disk, for one: the fragmented file is complete and playable
            logger.warning("%s stays without an index, which some players want for seeking: %s", self.path, error)
        finally:
            partial.unlink(missing_ok=True)

    def _with_duration(self, packet: Any) -> Any:
        """Without a duration the last frame of an MP4 would end when it begins, and players would drop it."""
        packet.duration = round(1 / (self.fps * packet.time_base))
        return packet


class GifFile:
    """A .gif file in which every frame has its own palette: exact up to 256 colours, the nearest 256 beyond.

    Written frame by frame, because every whole-file writer wants all frames at once. Time in a GIF counts in hundredths
    of a second; the delays are rounded so that the sum never drifts from the frame rate.
    """

    def __init__(
        self, path: Path, *, fps: Fraction, codec: str | None, crf: float | None, pixel_format: str | None
    ) -> None:
        _refuse(path, "a GIF", "gif", codec=codec, crf=crf, pixel_format=pixel_format)
        if fps > 50:
            raise ValueError(f"a GIF can show at most 50 frames per second; got fps={float(fps):g}")
        self.path, self.fps = path, fps
        self._file: Any = None
        self._num_frames = 0

    def append(self, frames: np.ndarray) -> None:
        """Write uint8 frames ``(F, H, W, 3)``."""
        from PIL.GifImagePlugin import getdata

        if self._file is None:
            height, width = frames.shape[1:3]
            if max(height, width) > 65535:
                raise ValueError(f"a GIF holds at most 65535 x 65535 pixels; got {height} x {width}")
            self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115 (open until close)
            loop_forever = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
            self._file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0) + loop_forever)
        for frame in frames:
            now, then = (round(100 * count / self.fps) for count in (self._num_frames, self._num_frames + 1))
            parts = getdata(_with_palette(frame), duration=10 * (then - now), include_color_table=True)
            self._file.write(b"".join(parts))
            self._num_frames += 1

    def close(self) -> None:
        """Write the end mark."""
        if self._file is not None:
            self._file.write(b";")
            self._file.close()


class PngFolder:
    """A folder of 000000.png, 000001.png, ..., each bit for bit the frame; every file states the frame rate as text."""

    def __init__(
        self, path: Path, *, fps: Fraction, codec: str | None, crf: float | None, pixel_format: str | None
    ) -> None:
        _refuse(path, "a folder of PNGs", "png", codec=codec, crf=crf, pixel_format=pixel_format)
        self.path, self.fps = path, fps
        self._num_frames = 0

    def append(self, frames: np.ndarray) -> None:
        """Write uint8 frames ``(F, H, W, 3)``, one file each."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        if self._num_frames == 0:
            self.path.mkdir(exist_ok=True)
            for old in numbered_frames(self.path):  # or a shorter video would end with frames of the one before
                old.unlink()
        text = PngInfo()
        text.add_text("fps", str(self.fps))
        partial = self.path / f".{os.getpid()}.partial"
        try:
            for frame in frames:
                Image.fromarray(frame).save(partial, format="PNG", pnginfo=text)
                os.replace(partial, self.path / f"{self._num_frames:06d}.png")
                self._num_frames += 1
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is left to do: every frame is a finished file."""


def numbered_frames(folder: Path) -> list[Path]:
    """The frames that :class:`PngFolder` wrote into a folder, in order."""
    return sorted((path for path in folder.iterdir() if _FRAME_NAME.fullmatch(path.name)), key=lambda p: int(p.stem))


def _refuse(path: Path, what: str, only_codec: str, *, codec: Any, crf: Any, pixel_format: Any) -> None:
    if codec not in (None, only_codec):
        raise ValueError(f"codec must be {only_codec!r} for {what}; got {codec!r} for {path}")
    for name, value in {"crf": crf, "pixel_format": pixel_format}.items():
        if value is not None:
            raise ValueError(f"{what} takes no {name}; got {name}={value!r} for {path}")


def _with_palette(frame: np.ndarray) -> Any:
    """The frame as a palette image: exact if it has up to 256 colours."""
    from PIL import Image

    image = Image.fromarray(frame)
    packed = frame.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > 256:
        return image.quantize(256)
    exact = Image.fromarray(indices.reshape(frame.shape[:2]).astype(np.uint8)).convert("P")
    exact.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8).tobytes())
    return exact
