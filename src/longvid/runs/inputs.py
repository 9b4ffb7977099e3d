"""The arguments of a call as they lie in a run folder: plain values in the manifest, pictures and tensors in a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longvid.pipelines.inputs import open_video, to_unit
from longvid.runs.schema import MAX_FRAMES

NAME = "inputs.safetensors"
MAX_BYTES = 2**36
TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds")
IMAGES = ("image", "anchor_image")
VIDEO_FRAMES = 64
_NOT_KEPT = {
    "generator", "resume", "output_type", "return_dict", "output_masks", "callback_on_step_end",
    "callback_on_step_end_tensor_inputs", "callback_on_chunk_end", "checkpoint",
}  # fmt: skip


def pack(request: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Part a request into plain values and tensors.

    Pictures become float tensors (3, H, W) in [0, 1]; of a video to be continued the last 64 frames are kept, and the
    anchor before them. Callbacks and generators are not kept.

    Raises:
        ValueError: if something can be neither, or the request is of several videos.
    """
    if request.resume is not None:
        raise ValueError("a run begins at its first frame, or with a video; got resume")
    if getattr(request, "checkpoint", None) is not None:
        raise ValueError("a run keeps the steps in its own folder; got checkpoint")
    plain, tensors = {}, {}
    values = {name: getattr(request, name) for name in sorted(request.field_names() - _NOT_KEPT)}
    if values.get("video") is not None:
        tensors["video"], values["anchor_frame"] = _end_of(values.pop("video"), values.get("anchor_frame", -1))
    for name, value in values.items():
        if value is None or (name == "first_chunk_options" and not value):
            continue
        if name in IMAGES:
            tensors[name] = _one_image(value, name)
        elif name in TENSORS:
            tensors[name] = value.detach().cpu().contiguous()
        else:
            plain[name] = _plain(value, name)
    return plain, tensors


def unpack(request_type: Any, plain: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """The request that `pack` parted.

    Raises:
        ValueError: if it names arguments that this pipeline does not take.
    """
    known = request_type.field_names() - _NOT_KEPT
    unknown = sorted({*plain, *tensors} - known)
    if unknown:
        raise ValueError(f"the request of the run has arguments that the model does not take: {', '.join(unknown)}")
    return request_type(**plain, **tensors, output_type="pt")


def settle(plain: dict[str, Any], checked: Any) -> dict[str, Any]:
    """Fill in the defaults that a checked request has, so that they stay what they are when a model's change."""
    filled = {name: getattr(checked, name) for name in checked.field_names() - _NOT_KEPT}
    kept = {name: _plain(value, name) for name, value in filled.items() if _is_setting(value)}
    return {**kept, **plain}


def with_prompt(request: Any, prompt: str | None) -> Any:
    """The request with another prompt for every part of the story.

    Raises:
        ValueError: if it has embeddings instead of prompts.
    """
    if prompt is None:
        return request
    if request.prompt is None:
        raise ValueError("this run was begun with prompt_embeds; it takes no other prompt")
    return replace(request, prompt=_same(request.prompt, prompt))


def lengthened(plain: dict[str, Any], num_frames: int, prompt: str | None) -> dict[str, Any]:
    """The plain arguments of a longer video; the last prompt goes on, or another one follows.

    Where every prompt has a negative prompt of its own, the one that follows takes the last of them.

    Raises:
        ValueError: if `num_frames` is not more than there is, or there are embeddings instead of prompts.
    """
    before = plain["num_frames"]
    if not isinstance(num_frames, int) or isinstance(num_frames, bool) or not before < num_frames <= MAX_FRAMES:
        raise ValueError(
            f"num_frames must be the length of the longer video, from {before + 1} to {MAX_FRAMES}; got {num_frames!r}"
        )
    longer = {**plain, "num_frames": num_frames}
    lengths, added = plain.get("frames_per_prompt"), num_frames - before
    if lengths is None and prompt is None:
        return longer
    texts = plain.get("prompt")
    if texts is None:
        raise ValueError("a story in prompt_embeds cannot be made longer")
    texts = list(texts[0] if _is_nested(texts) else [texts] if isinstance(texts, str) else texts)
    lengths = [lengths] * len(texts) if isinstance(lengths, int) else list(lengths or [before])
    lengths[-1] -= sum(lengths) - before  # the video may end within its last prompt
    if prompt is None:
        lengths[-1] += added
    else:
        negative = plain.get("negative_prompt")
        if isinstance(negative, list) and len(negative) == len(texts) > 1:  # a single one is for all prompts
            longer["negative_prompt"] = [*negative, negative[-1]]
        texts, lengths = [*texts, prompt], [*lengths, added]
    return {**longer, "prompt": texts, "frames_per_prompt": lengths}


def save_inputs(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the tensors."""
    from safetensors.torch import save

    from longvid.video.atomic import write_atomically

    write_atomically(path, save({name: tensor.clone() for name, tensor in tensors.items()}))


def load_inputs(path: Path) -> dict[str, Tensor]:
    """Read the tensors.

    Raises:
        ValueError: if the file is damaged or holds other tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if unknown := sorted(tensors.keys() - {*TENSORS, *IMAGES, "video"}):
        raise ValueError(f"{path} holds unknown tensors: {', '.join(unknown)}")
    return tensors


def _end_of(video: Any, anchor: int) -> tuple[Tensor, int]:
    frames = open_video(video)
    if frames.num_videos != 1:
        raise ValueError(f"a run continues one video; got {frames.num_videos}")
    tail: deque[Tensor] = deque(maxlen=max(VIDEO_FRAMES, -anchor))
    first, count = None, 0
    for count, frame in enumerate(frames.frames, start=1):  # noqa: B007 (the count is used after the loop)
        first = frame if count - 1 == anchor else first
        tail.append(frame)
    kept = list(tail)
    if count > len(kept) and anchor >= 0:
        if first is None:
            raise ValueError(f"anchor_frame must be a frame of the video, which has {count}; got {anchor}")
        return torch.cat([first, *kept]).float(), 0
    return torch.cat(kept).float(), anchor


def _one_image(value: Any, name: str) -> Tensor:
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", 3) == 4:
        if len(value) != 1:
            raise ValueError(f"a run holds one video: expected one {name}; got {len(value)}")
        value = value[0]
    return to_unit(value, name).contiguous()


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry, name) for entry in value]
    if is_dataclass(value) and not isinstance(
        value, type
    ):  # a GuidanceSchedule, which the call takes as its fields too
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, name) for key, entry in value.items()}
    help_ = ": make the beginning with it and pass that as image or video" if name.startswith("first_") else ""
    raise ValueError(
        f"a run folder keeps all that it was asked for, and {name}={type(value).__name__} cannot be kept there{help_}"
    )


def _is_setting(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (is_dataclass(value) and not isinstance(value, type))


def _same(prompt: Any, text: str) -> Any:
    return text if isinstance(prompt, str) else [_same(part, text) for part in prompt]


def _is_nested(texts: Any) -> bool:
    return not isinstance(texts, str) and any(isinstance(text, list) for text in texts)
