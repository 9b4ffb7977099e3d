"""Encoded packets into containers: as independent pieces that stand behind one another, or as a file with an index."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

# a stream of independent pieces, so that pieces written by one muxer each can stand behind one another
FRAGMENTED = {
    "mp4": {
        "movflags": "empty_moov+default_base_moof+frag_discont+skip_trailer",
        "use_editlist": "0",
        "avoid_negative_ts": "disabled",
    },
    "webm": {"live": "1"},
    "matroska": {"live": "1"},
}
FINISHED = {"mp4": {"movflags": "faststart"}, "webm": {}, "matroska": {}}


def mux(
    target: Any,
    packets: Iterable[Any],
    *,
    container: str,
    fps: Fraction,
    options: dict[str, str],
    template: Any,
) -> int:
    """Write packets into a file of their own and return the size of its header.

    Args:
        target: A path, or a `BytesIO`.
        packets: Of one video stream without reordered frames, with their time stamps.
        container: FFmpeg's name of it.
        fps: Frames per second.
        options: For the muxer.
        template: The stream they come from.
    """
    import av

    with av.open(target, "w", format=container, container_options=options) as muxer:
        stream = muxer.add_stream_from_template(template)
        stream.time_base = 1 / fps
        stream.codec_context.framerate = fps  # else Matroska says nothing, and readers guess from a few frames
        muxer.start_encoding()
        header_size = target.tell() if isinstance(target, io.BytesIO) else 0
        for packet in packets:
            packet.stream, packet.dts = stream, packet.pts  # the encoders used here do not reorder frames
            muxer.mux(packet)
    return header_size


def mux_fragment(packets: Iterable[Any], number: int, *, container: str, fps: Fraction, template: Any) -> bytes:
    """One piece of a video, to stand behind those before it: with the header of the container if it is number 0."""
    options = dict(FRAGMENTED[container])
    if container == "mp4":
        options["fragment_index"] = str(number + 1)
    buffer = io.BytesIO()
    header_size = mux(buffer, packets, container=container, fps=fps, options=options, template=template)
    return buffer.getvalue()[header_size if number else 0 :]
