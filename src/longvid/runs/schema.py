"""Reading a manifest that anybody may have edited."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from longvid.metrics.diagnosis import Limits
from longvid.runs.manifest import FORMAT, FORMAT_VERSION, NAME, Change, ChunkRecord, Manifest, checksum
from longvid.runs.options import RunOptions
from longvid.runs.reader import Reader

MAX_BYTES = 2**28
MAX_FRAMES = 2_000_000
MAX_PIXELS = 2**26
MAX_SEED = 2**63 - 1
_SHA = "[0-9a-f]{64}"


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a run folder.

    Raises:
        ValueError: if there is none, it was edited or damaged, or a newer longvid wrote it.
    """
    path = folder / NAME
    if not path.is_file() or path.is_symlink():
        raise ValueError(f"{folder} is not a run folder: it has no {NAME}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is damaged: it has {path.stat().st_size} bytes, a manifest at most {MAX_BYTES}")
    try:
        values = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse)
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not JSON: {error}") from error
    try:
        return _read(values)
    except (TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _read(values: Any) -> Manifest:
    reader = Reader(values, "the manifest")
    if reader.take("format") != FORMAT:
        raise ValueError("this is not the manifest of a run")
    version = reader.integer("format_version", 1, 2**31)
    if version > FORMAT_VERSION:
        raise ValueError(
            f"this run was made by a newer longvid: it has format version {version}, this version reads up to "
            f"{FORMAT_VERSION}; upgrade longvid to go on with it"
        )
    if reader.take("checksum") != checksum({name: value for name, value in values.items() if name != "checksum"}):
        raise ValueError("it was edited or damaged: its checksum does not fit; a run is changed by the commands only")
    manifest = Manifest(
        request=_read_request(reader.plain("request")),
        inputs_bytes=reader.optional("inputs_bytes", reader.integer, 1, 2**40),
        inputs_sha256=reader.optional("inputs_sha256", reader.text, _SHA),
        keys=tuple(reader.each("keys", _read_key)),
        seed=reader.optional("seed", reader.integer, 0, MAX_SEED),
        model=_read_model(reader.plain("model")),
        fingerprint=reader.texts("fingerprint"),
        environment=reader.texts("environment"),
        options=_read_options(reader.take("options")),
        created=reader.text("created"),
        mixed=reader.each("mixed", _read_text),
        changes=reader.each("changes", _read_change),
        chunks=reader.each("chunks", _read_chunk),
        finished=reader.optional("finished", reader.text, _SHA),
        parent=reader.optional("parent", reader.text),
    )
    reader.done()
    if len(manifest.keys) != 1:
        raise ValueError(f"a run holds one video and has one key; got {len(manifest.keys)}")
    _check_chain(manifest)
    return manifest


def _read_request(request: dict[str, Any]) -> dict[str, Any]:
    reader = Reader(dict(request), "the request")
    reader.integer("num_frames", 1, MAX_FRAMES)
    height, width = reader.integer("height", 1, 2**14), reader.integer("width", 1, 2**14)
    if height * width > MAX_PIXELS:
        raise ValueError(f"a frame has up to {MAX_PIXELS} pixels; got {height} x {width}")
    reader.integer("num_inference_steps", 1, 2**20)
    for name in ("guidance_scale", "reference_guidance_scale", "anchor_guidance_scale", "eta", "noise_scale"):
        if name in request and not isinstance(request[name], dict):  # a schedule; the pipeline knows which there are
            reader.optional(name, reader.number, -1e6, 1e6)
    return request


def _read_model(model: dict[str, Any]) -> dict[str, Any]:
    reader = Reader(dict(model), "the model")
    reader.text("class", r"\w{1,100}")
    for name in ("name", "device", "dtype"):
        reader.optional(name, reader.text)
    reader.optional("scheduler", reader.plain)
    reader.done()
    return model


def _read_options(values: Any) -> RunOptions:
    if isinstance(values, dict):  # the first runs had no diagnosis, and kept no frames
        values = {"on_problem": None, "max_rerolls": 0, "limits": asdict(Limits()), "keep_frames": False, **values}
    reader = Reader(values, "the options")
    limits = Reader(reader.take("limits"), "the limits")
    options = RunOptions(
        fps=Fraction(reader.text("fps", r"[1-9]\d{0,8}(/[1-9]\d{0,8})?")),
        codec=reader.optional("codec", reader.text),
        crf=reader.optional("crf", reader.number, 0, 63),
        pixel_format=reader.optional("pixel_format", reader.text),
        chunk_frames=reader.integer("chunk_frames", 1, 2**20),
        keep_states=reader.optional("keep_states", reader.integer, 2, 2**31),
        keep_frames=reader.flag("keep_frames"),
        on_problem=reader.optional("on_problem", reader.text),
        max_rerolls=reader.integer("max_rerolls", 0, 1000),
        limits=Limits(**{field.name: limits.number(field.name, 0, 1e6) for field in fields(Limits)}),
    )
    limits.done()
    reader.done()
    return options


def _read_change(values: Any, where: str) -> Change:
    reader = Reader(values, where)
    change = Change(
        chunk=reader.integer("chunk", 0, MAX_FRAMES),
        rest=reader.flag("rest"),
        seed=reader.optional("seed", reader.integer, 0, MAX_SEED),
        prompt=reader.optional("prompt", reader.text),
    )
    reader.done()
    return change


def _read_chunk(values: Any, where: str) -> ChunkRecord:
    if isinstance(values, dict):  # the first runs kept no frames
        values = {"frames_bytes": None, "frames_sha256": None, **values}
    reader = Reader(values, where)
    record = ChunkRecord(
        first_window=reader.integer("first_window", 0, MAX_FRAMES),
        stop_window=reader.integer("stop_window", 1, MAX_FRAMES + 1),
        start=reader.integer("start", 0, MAX_FRAMES),
        stop=reader.integer("stop", 1, MAX_FRAMES),
        take=reader.integer("take", 1, 2**31),
        video_bytes=reader.integer("video_bytes", 1, 2**40),
        video_sha256=reader.text("video_sha256", _SHA),
        state_bytes=reader.optional("state_bytes", reader.integer, 1, 2**34),
        state_sha256=reader.optional("state_sha256", reader.text, _SHA),
        seed=reader.optional("seed", reader.integer, 0, MAX_SEED),
        prompt=reader.optional("prompt", reader.text),
        seconds=reader.number("seconds", 0, 1e12),
        made=reader.text("made"),
        frames_bytes=reader.optional("frames_bytes", reader.integer, 1, 2**44),
        frames_sha256=reader.optional("frames_sha256", reader.text, _SHA),
    )
    reader.done()
    return record


def _read_key(value: Any, where: str) -> int:
    return Reader({"key": value}, where).integer("key", 0, MAX_SEED)


def _read_text(value: Any, where: str) -> str:
    return Reader({"text": value}, where).text("text")


def _check_chain(manifest: Manifest) -> None:
    window = frame = 0
    for index, chunk in enumerate(manifest.chunks):
        fits = chunk.first_window == window < chunk.stop_window and chunk.start == frame < chunk.stop
        if not fits or (chunk.state_bytes is None) != (chunk.state_sha256 is None):
            raise ValueError(f"chunk {index} does not fit behind the one before it")
        kept = {chunk.frames_bytes is not None, chunk.frames_sha256 is not None}
        if kept != {manifest.options.frames_apart}:
            raise ValueError(f"chunk {index} and the options do not agree on whether frames are kept apart")
        window, frame = chunk.stop_window, chunk.stop
    if frame > manifest.num_frames:
        raise ValueError(f"the chunks hold {frame} frames of a video of {manifest.num_frames}")
