"""ReferenceConditions: what the networks of ART-V are given about the frames before the one they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .anchored_unet import AnchoredUNet


@dataclass(frozen=True)
class EncodedConditions:
    """What one network's adapter and anchor made of the conditions; valid for every timestep and every text."""

    reference_features: tuple[Tensor, ...]
    anchor_tokens: Tensor | None = None

    @classmethod
    def of(cls, network: AnchoredUNet, references: Tensor, anchor: Tensor) -> EncodedConditions:
        """Encode references and anchor with the parts of `network`."""
        return cls(tuple(network.encode_references(references)), network.encode_anchor(anchor))


@dataclass(frozen=True)
class ReferenceConditions:
    """References, anchor and noise level of one frame, for both networks. Blank means zeros.

    Args:
        references: Latents of the frames before, newest first, concatenated along the channels, noise-augmented.
        static_reference: Latent that the static noise copies from: the newest reference.
        anchor: Latent of the anchor frame, noise-augmented.
        noise_level: Level of that augmentation, integers.
        mask_gate: If given, multiplies the mask: 0 forbids copying, for rows that have no reference to copy.
        unet_encoded, mask_encoded: The two networks' encodings of the above, see `encoded_by`.

    Shapes:
        references (B, 2 * C, H, W), static_reference and anchor (B, C, H, W), noise_level and mask_gate (B,).
    """

    references: Tensor
    static_reference: Tensor
    anchor: Tensor
    noise_level: Tensor
    mask_gate: Tensor | None = None
    unet_encoded: EncodedConditions | None = None
    mask_encoded: EncodedConditions | None = None

    def encoded_by(self, unet: AnchoredUNet, mask_network: AnchoredUNet | None = None) -> ReferenceConditions:
        """Return these conditions with the adapters' and anchors' work already done; the result is the same."""
        return replace(
            self,
            unet_encoded=EncodedConditions.of(unet, self.references, self.anchor),
            mask_encoded=None
            if mask_network is None
            else EncodedConditions.of(mask_network, self.references, self.anchor),
        )

    def inputs(self, encoded: EncodedConditions | None) -> dict[str, Any]:
        """Keyword arguments of `AnchoredUNet.forward`: raw latents, or `encoded` if that is there."""
        if encoded is None:
            return {"references": self.references, "anchor": self.anchor, "noise_level": self.noise_level}
        return {
            "reference_features": encoded.reference_features,
            "anchor_tokens": encoded.anchor_tokens,
            "noise_level": self.noise_level,
        }

    def to_dict(self) -> dict[str, Tensor]:
        """Flat dictionary of tensors, all with the batch first; what is None is left out."""
        tensors: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, EncodedConditions):
                for level, feature in enumerate(value.reference_features):
                    tensors[f"{field.name}.reference_features.{level}"] = feature
                if value.anchor_tokens is not None:
                    tensors[f"{field.name}.anchor_tokens"] = value.anchor_tokens
            elif value is not None:
                tensors[field.name] = value
        return tensors

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> ReferenceConditions:
        """Inverse of `to_dict`; keys of other things (a text, say) are ignored."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            prefix = f"{field.name}.reference_features."
            features = sorted((k for k in tensors if k.startswith(prefix)), key=lambda k: int(k[len(prefix) :]))
            if features:
                tokens = tensors.get(f"{field.name}.anchor_tokens")
                values[field.name] = EncodedConditions(tuple(tensors[k] for k in features), tokens)
            elif field.name in tensors:
                values[field.name] = tensors[field.name]
        return cls(**values)

    @classmethod
    def concatenate(cls, parts: Sequence[ReferenceConditions]) -> ReferenceConditions:
        """Join conditions along the batch.

        Raises:
            ValueError: if some have a field or an encoding that others have not.
        """
        dicts = [part.to_dict() for part in parts]
        if any(d.keys() != dicts[0].keys() for d in dicts):
            raise ValueError(f"conditions to join must have the same fields; got {[sorted(d) for d in dicts]}")
        return cls.from_dict({key: torch.cat([d[key] for d in dicts]) for key in dicts[0]})
