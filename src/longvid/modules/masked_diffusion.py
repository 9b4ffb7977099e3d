"""Masked diffusion: a mask joins the noise a network predicts with the noise a reference frame implies (ART-V)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from .anchored_unet import AnchoredUNet
from .reference_conditions import ReferenceConditions

STATIC_NOISES = ("ref_minus_noisy", "noisy_minus_ref", "scaled")
PREDICTION_TYPES = ("epsilon", "v_prediction")

MASK_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": nn.functional.hardsigmoid,
    "clamp": lambda mask: mask.clamp(0, 1),
}


def static_noise(sample: Tensor, reference: Tensor, alpha_bar: Tensor | float | None, kind: str) -> Tensor:
    r"""The noise that a reference frame implies for a noisy sample.

    .. math:: \epsilon_{static} = y_{ref} - y_t \quad|\quad y_t - y_{ref} \quad|\quad
        (y_t - \sqrt{\bar\alpha}\, y_{ref}) / \sqrt{1 - \bar\alpha}

    The first is the equation of ART-V's Sec. 3.2, the second the wording of its introduction and Fig. 3, the third
    (ours) is exact where the clean frame equals the reference: it leads the sampler to the reference.

    Args:
        sample: Noisy latent y_t at the variance-preserving scale, the one networks see.
        alpha_bar: Cumulative product of the schedule at this timestep; only "scaled" reads it.
        kind: "ref_minus_noisy", "noisy_minus_ref" or "scaled".

    Shapes:
        sample and reference (B, C, H, W), alpha_bar () or (B,) -> (B, C, H, W).

    Raises:
        ValueError: if `kind` is unknown, or "scaled" without `alpha_bar`.

    Source: ART-V (arXiv:2311.18834), Eq. 5-6.
    """
    if kind == "ref_minus_noisy":
        return reference - sample
    if kind == "noisy_minus_ref":
        return sample - reference
    if kind != "scaled":
        raise ValueError(f"static_noise must be one of {', '.join(STATIC_NOISES)}; got {kind!r}")
    if alpha_bar is None:
        raise ValueError("static_noise='scaled' needs alpha_bar, the cumulative alpha at the timestep; got None")
    signal, noise = _amplitudes(alpha_bar, sample)
    return (sample - signal * reference) / noise


def _amplitudes(alpha_bar: Tensor | float, sample: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar), in the shape and dtype that multiply `sample`."""
    signal_power = torch.as_tensor(alpha_bar, device=sample.device, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return signal_power.sqrt().to(sample.dtype), (1 - signal_power).sqrt().to(sample.dtype)


@dataclass
class MaskedDiffusionOutput(BaseOutput):
    """Prediction of a `MaskedDiffusionModel` and what it is made of.

    Args:
        noise: The predicted noise, (B, C, H, W).
        mask: Share of the static noise in [0, 1], (B, 1, H, W); None without a mask network.
        dynamic: Noise predicted by the network, (B, C, H, W).
        static: Noise implied by the reference, (B, C, H, W); None without a mask network.
    """

    noise: Tensor
    mask: Tensor | None = None
    dynamic: Tensor | None = None
    static: Tensor | None = None


class MaskedDiffusionModel(nn.Module):
    r"""Predict noise as a mix of dynamic noise, from a network, and static noise, from the reference frame.

    .. math:: \hat\epsilon = m\, \epsilon_{static} + (1 - m)\, \epsilon_{dynamic}, \qquad
        \epsilon_{dynamic} = \Phi_{dynamic}(y_t, c), \quad m = \sigma(\Phi_{mask}(y_t, c))

    A network that predicts velocity (ours: the paper's predicts noise) gives the dynamic noise
    :math:`\sqrt{\bar\alpha}\, \Phi_{dynamic}(y_t, c) + \sqrt{1 - \bar\alpha}\, y_t`; the rest stays as it is.

    Both networks get the same inputs; each encodes the conditions with its own adapter and anchor blocks. The model
    owns no weights: it composes two networks, and without a mask network it predicts the dynamic noise alone.

    Args:
        unet: Network of the dynamic noise.
        mask_network: Network of the mask, with one output channel; None for the paper's ablation.
        static_noise: See `static_noise`. Trained weights are valid for the kind they were trained with only.
        mask_activation: "sigmoid", "hard_sigmoid" or "clamp".
        prediction_type: What `unet` predicts, "epsilon" or "v_prediction".

    Raises:
        ValueError: for an unknown option or networks that do not fit together.

    Source: ART-V (arXiv:2311.18834), Sec. 3.2, Eq. 5-7.
    """

    def __init__(
        self,
        unet: AnchoredUNet,
        mask_network: AnchoredUNet | None = None,
        *,
        static_noise: str = "ref_minus_noisy",
        mask_activation: str = "sigmoid",
        prediction_type: str = "epsilon",
    ):
        super().__init__()
        if static_noise not in STATIC_NOISES:
            raise ValueError(f"static_noise must be one of {', '.join(STATIC_NOISES)}; got {static_noise!r}")
        if mask_activation not in MASK_ACTIVATIONS:
            raise ValueError(f"mask_activation must be one of {', '.join(MASK_ACTIVATIONS)}; got {mask_activation!r}")
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}; got {prediction_type!r}")
        if mask_network is not None and mask_network.config["out_channels"] != 1:
            raise ValueError(f"mask_network must have 1 output channel; got {mask_network.config['out_channels']}")
        self.unet = unet
        self.mask_network = mask_network
        self.static_noise = static_noise
        self.mask_activation = mask_activation
        self.prediction_type = prediction_type

    @property
    def needs_alpha_bar(self) -> bool:
        """Whether `forward` must be told `alpha_bar`."""
        return self.prediction_type == "v_prediction" or (
            self.mask_network is not None and self.static_noise == "scaled"
        )

    def cache(self, conditions: ReferenceConditions) -> ReferenceConditions:
        """Encode the conditions once for all evaluations of a frame; predictions stay bit-identical."""
        return conditions.encoded_by(self.unet, self.mask_network)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        conditions: ReferenceConditions,
        alpha_bar: Tensor | float | None = None,
    ) -> MaskedDiffusionOutput:
        """Predict the noise in `sample`.

        Args:
            sample: Noisy latent at the variance-preserving scale.
            conditions: References, anchor and noise level, encoded or not.
            alpha_bar: Cumulative alpha at the timestep, if `needs_alpha_bar`.

        Shapes:
            sample (B, C, H, W), timestep () or (B,), encoder_hidden_states (B, N, D), alpha_bar () or (B,).

        Raises:
            ValueError: if `alpha_bar` is needed and missing.
        """
        if alpha_bar is None and self.needs_alpha_bar:
            raise ValueError(
                f"static_noise={self.static_noise!r} with prediction_type={self.prediction_type!r} needs alpha_bar, the"
                f" cumulative alpha at the timestep; got None"
            )
        dynamic = self.unet(
            sample, timestep, encoder_hidden_states, return_dict=False, **conditions.inputs(conditions.unet_encoded)
        )[0]
        if self.prediction_type == "v_prediction":
            signal, noise_level = _amplitudes(alpha_bar, sample)  # type: ignore[arg-type]
            dynamic = signal * dynamic + noise_level * sample
        if self.mask_network is None:
            return MaskedDiffusionOutput(noise=dynamic, dynamic=dynamic)
        logits = self.mask_network(
            sample, timestep, encoder_hidden_states, return_dict=False, **conditions.inputs(conditions.mask_encoded)
        )[0]
        mask = MASK_ACTIVATIONS[self.mask_activation](logits)
        if conditions.mask_gate is not None:
            mask = mask * conditions.mask_gate.to(mask.dtype).reshape(-1, 1, 1, 1)
        static = static_noise(sample, conditions.static_reference, alpha_bar, self.static_noise)
        noise = mask * static + (1 - mask) * dynamic  # Eq. 7
        return MaskedDiffusionOutput(noise=noise, mask=mask, dynamic=dynamic, static=static)
