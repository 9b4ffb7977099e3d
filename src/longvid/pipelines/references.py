"""From frames to the conditions of ART-V's networks; sampling and training share this."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longvid.modules.reference_conditions import ReferenceConditions

BLANKS = ("zeros", "encoded_black", "encoded_gray")
STATIC_REFS = ("clean", "augmented")
NULL_REF_STATICS = ("blank", "zero_mask")
REF_ORDERS = ("newest_first", "oldest_first")


@dataclass(frozen=True)
class ReferenceRules:
    """How references are laid out; a model is trained for one set of rules and keeps it in its config.

    Attributes:
        static_ref: Whether the static noise copies from the "clean" or the noise-"augmented" newest reference.
        null_ref_static: What it copies from where references are blank: the "blank" frame, or nothing ("zero_mask").
        ref_order: Channel order of the references: "newest_first" or "oldest_first".

    Raises:
        ValueError: for a rule that does not exist.
    """

    static_ref: str = "clean"
    null_ref_static: str = "blank"
    ref_order: str = "newest_first"

    def __post_init__(self) -> None:
        for name, known in (
            ("static_ref", STATIC_REFS),
            ("null_ref_static", NULL_REF_STATICS),
            ("ref_order", REF_ORDERS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")


@dataclass(frozen=True)
class NoisyFrames:
    """The frames a new one is made from, noise-augmented, and the newest one as it was.

    Shapes:
        each (B, C, h, w).
    """

    newest: Tensor
    older: Tensor
    anchor: Tensor
    clean: Tensor


def reference_conditions(
    frames: NoisyFrames | None,
    blank: Tensor,
    noise_level: Tensor,
    *,
    keep_references: bool | Tensor = True,
    keep_anchor: bool | Tensor = True,
    rules: ReferenceRules = ReferenceRules(),  # noqa: B008 (frozen)
) -> ReferenceConditions:
    """Lay out references and anchor for the networks, blank where they are dropped.

    Blank frames replace the noise-augmented ones, so they carry no noise.

    Args:
        frames: The frames, or None if there are none yet: all blank.
        blank: The blank latent.
        noise_level: Level of the augmentation; blank frames keep it.
        keep_references: Whether both references stay, for all or per sample.
        keep_anchor: Whether the anchor stays, for all or per sample.
        rules: How the model was trained.

    Shapes:
        blank (B, C, h, w) or (1, C, h, w) with frames, noise_level (B,), keep_* () or (B,).
    """
    batch = noise_level.shape[0]
    blank = blank.expand(batch, -1, -1, -1)
    if frames is None:
        frames, keep_references, keep_anchor = NoisyFrames(blank, blank, blank, blank), False, False
    pair = [_kept(frames.newest, blank, keep_references), _kept(frames.older, blank, keep_references)]
    static = frames.clean if rules.static_ref == "clean" else frames.newest
    gate = None
    if rules.null_ref_static == "zero_mask":
        gate = torch.as_tensor(keep_references, device=blank.device).to(blank.dtype).expand(batch)
    return ReferenceConditions(
        references=torch.cat(pair if rules.ref_order == "newest_first" else pair[::-1], dim=1),
        static_reference=_kept(static, blank, keep_references),
        anchor=_kept(frames.anchor, blank, keep_anchor),
        noise_level=noise_level,
        mask_gate=gate,
    )


def _kept(frame: Tensor, blank: Tensor, keep: bool | Tensor) -> Tensor:
    if isinstance(keep, Tensor):
        return torch.where(keep.reshape(-1, 1, 1, 1), frame, blank)
    return frame if keep else blank
