"""From a Stable Diffusion model to a HARIVO model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, cast

from diffusers import DDIMScheduler, DiffusionPipeline, MotionAdapter

from longvid.modules.frame_tokens import FrameTokenGenerator
from longvid.modules.mapping_network import MappingNetwork
from longvid.modules.motion_unet import check_adapter, motion_adapter_of, motion_unet, new_motion_adapter
from longvid.pipelines.image_model import image_parts

_ANIMATEDIFF_FRAMES = 16  # the length of the clips that AnimateDiff's published temporal layers were trained on


def grow_harivo(
    base: str | os.PathLike | DiffusionPipeline,
    *,
    motion_adapter: MotionAdapter | str | os.PathLike | None = None,
    mapping_network: MappingNetwork | Literal["auto"] | None = "auto",
    frame_tokens: FrameTokenGenerator | Literal["auto"] | None = "auto",
    beta_schedule: str | None = None,
    part_options: Mapping[str, Mapping[str, Any]] | None = None,
    load_options: Mapping[str, Any] | None = None,
    **constants: Any,
) -> dict[str, Any]:
    """Give the components of a HARIVO model grown from a Stable Diffusion model.

    Without a motion adapter all parts are new: temporal layers whose outputs are zero, a mapping network that is the
    identity, and frame tokens, ready to be trained. With AnimateDiff's, the model makes videos at once: new mapping
    networks and tokens would only disturb it, so there are none, windows have the 16 frames and the noise the "linear"
    schedule that it was trained with.

    Args:
        base: A pipeline with `vae`, `text_encoder`, `tokenizer`, `unet` and `scheduler`, whose components are shared,
            except the UNet, which is copied; or the folder, hub id or bundled name of one.
        motion_adapter: Temporal layers in AnimateDiff's format, or the folder or hub id of them; None makes new ones.
        mapping_network: One of your own; None leaves it out; "auto" makes a new one beside new temporal layers.
        frame_tokens: Likewise.
        beta_schedule: Noise schedule; by default the base's with new temporal layers, "linear" with given ones.
        part_options: Arguments for new parts, by their names "motion_adapter" (`new_motion_adapter`), "mapping_network"
            and "frame_tokens".
        load_options: Arguments of `from_pretrained`, such as `dtype` or `variant`, if `base` is a name.
        constants: Arguments of `HARIVOPipeline`, such as `window_size`, `controlnet` or another `scheduler`.

    Raises:
        ValueError: if the base cannot be grown, or the adapter was made for another one.
    """
    parts, options = image_parts(base, load_options), dict(part_options or {})
    unknown = sorted(set(options) - {"motion_adapter", "mapping_network", "frame_tokens"})
    if unknown:
        raise ValueError(f"part_options must name new parts; got {', '.join(unknown)}")
    unet, given = parts["unet"], motion_adapter is not None
    adapter = _adapter(motion_adapter) if given else new_motion_adapter(unet, **options.get("motion_adapter", {}))
    check_adapter(unet, adapter)
    size = constants.setdefault("window_size", _ANIMATEDIFF_FRAMES if given else 24)
    constants.setdefault("overlap", size // 3)
    if mapping_network == "auto":
        channels = {"in_channels": unet.config["in_channels"]}
        made = None if given else MappingNetwork(**{**channels, **options.get("mapping_network", {})})
        mapping_network = made
    if frame_tokens == "auto":
        shape = {
            "text_dim": unet.config["cross_attention_dim"],
            "num_text_tokens": parts["tokenizer"].model_max_length,
            "num_frames": size,
        }
        frame_tokens = None if given else FrameTokenGenerator(**{**shape, **options.get("frame_tokens", {})})
    new = {"mapping_network": mapping_network, "frame_tokens": frame_tokens}
    return {
        **{name: parts[name] for name in ("vae", "text_encoder", "tokenizer")},
        "unet": motion_unet(unet, adapter),
        "scheduler": _ddim(parts["scheduler"], beta_schedule or ("linear" if given else None)),
        **{name: part if part is None else part.to(unet.device, unet.dtype).eval() for name, part in new.items()},
        **constants,
    }


def rebased(pipe: Any, base: str | os.PathLike | DiffusionPipeline, load_options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the components and constants of a HARIVO pipeline around another image model.

    Raises:
        ValueError: if its temporal layers were made for another kind of base.
    """
    parts = image_parts(base, load_options)
    unet = motion_unet(parts["unet"], motion_adapter_of(pipe.unet))
    new = {**{name: parts[name] for name in ("vae", "text_encoder", "tokenizer")}, "unet": unet}
    return {**pipe.components, **pipe.parameters, **new}


def _adapter(adapter: MotionAdapter | str | os.PathLike | None) -> MotionAdapter:
    if isinstance(adapter, (str, os.PathLike)):
        try:
            return MotionAdapter.from_pretrained(os.fspath(adapter))
        except OSError as error:
            raise ValueError(f"cannot load the motion adapter {os.fspath(adapter)!r}: {error}") from error
    if not isinstance(adapter, MotionAdapter):
        raise ValueError(f"motion_adapter must be a MotionAdapter or the name of one; got {type(adapter).__name__}")
    return adapter


def _ddim(scheduler: Any, beta_schedule: str | None) -> DDIMScheduler:
    changes: dict[str, Any] = {} if beta_schedule is None else {"beta_schedule": beta_schedule}
    return cast(DDIMScheduler, DDIMScheduler.from_config(scheduler.config, clip_sample=False, **changes))
