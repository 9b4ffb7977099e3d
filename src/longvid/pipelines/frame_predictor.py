"""ART-V's prediction for one frame: branches of conditions, encoded once, joined by the guidance of Eq. 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from einops import rearrange
from torch import Tensor

from longvid.modules.masked_diffusion import MaskedDiffusionModel
from longvid.modules.reference_conditions import EncodedConditions, ReferenceConditions
from longvid.samplers.guidance import guided
from longvid.samplers.prediction import alpha_bar, from_epsilon, on_device
from longvid.samplers.processes import ALONE, Processes

Branches = list[dict[str, Tensor]]


class FramePredictor:
    r"""`predict(sample, timestep)` for one frame, with the four branches of Eq. 8.

    .. math:: \epsilon = (1 + w_r + w_a + w_t)\, \epsilon(r, a, c) - w_r\, \epsilon(\emptyset, a, c)
        - w_a\, \epsilon(r, \emptyset, c) - w_t\, \epsilon(r, a, \emptyset)

    A branch that differs in nothing from the full one, or whose weight is 0, is not evaluated: a first frame without
    references costs two evaluations, any other four.

    Args:
        model: The two networks.
        scheduler: Gives :math:`\bar\alpha` and says which kind of prediction it takes.
        branches: Full, without references, without anchor, without text, see `branch_conditions`; a function, called
            at every evaluation, if the references' noise is drawn anew each time.
        weights: Gives :math:`(w_r, w_a, w_t)`, read again at every evaluation.
        batched: Whether the branches are evaluated in one batch.
        masks: A list that gets the full branch's mask of every evaluation, (B, 1, h, w), if there is one.
        processes: Who evaluates the branches.

    Shapes:
        sample (B, C, 1, h, w), timestep () -> (B, C, 1, h, w).
    """

    def __init__(
        self,
        model: MaskedDiffusionModel,
        scheduler: Any,
        *,
        branches: Branches | Callable[[], Branches],
        weights: Callable[[], Sequence[float]],
        batched: bool = True,
        masks: list[Tensor] | None = None,
        processes: Processes = ALONE,
    ):
        self.model, self.scheduler, self.branches, self.weights = model, scheduler, branches, weights
        self.batched, self.masks, self.processes = batched, masks, processes

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Predict one frame's noise, guided, in the scheduler's own kind of prediction."""
        branches = self.branches() if callable(self.branches) else self.branches
        weights = list(self.weights())[: len(branches) - 1]
        frame = rearrange(sample, "b c 1 h w -> b c h w")
        masks: list[Tensor] = []
        how = {"batched": self.batched, "processes": self.processes}
        noise = guided(partial(self.conditional, masks=masks), branches, weights, **how)(frame, timestep)
        if self.masks is not None and self.model.mask_network is not None:
            self.masks.extend(self.processes.spread([lambda: masks[0][: frame.shape[0]].float()]))  # of the full branch
        prediction = from_epsilon(noise, frame, timestep, self.scheduler)
        return rearrange(prediction, "b c h w -> b c 1 h w")

    def conditional(
        self, sample: Tensor, timestep: Tensor, conditions: Mapping[str, Tensor], *, masks: list[Tensor] | None = None
    ) -> Tensor:
        """Predict the noise under one branch or several joined ones, (n B, C, h, w), in the networks' dtype inside."""
        share = None
        if self.model.needs_alpha_bar:
            share = cast(Tensor, on_device(alpha_bar(self.scheduler, timestep), sample.device))
        output = self.model(
            sample.to(conditions["references"].dtype),
            on_device(timestep, sample.device),
            conditions["encoder_hidden_states"],
            conditions=ReferenceConditions.from_dict(conditions),
            alpha_bar=share,
        )
        if masks is not None and output.mask is not None:
            masks.append(output.mask)
        return output.noise.to(sample.dtype)


def branch_conditions(
    full: ReferenceConditions,
    no_references: ReferenceConditions | None,
    no_anchor: ReferenceConditions | None,
    text: Tensor,
    null_text: Tensor | None,
) -> Branches:
    """List the branches of Eq. 8 in order: full, without references, without anchor, without text.

    Args:
        full: With everything there is.
        no_references: With blank references; None if they are blank already.
        no_anchor: With a blank anchor; None if it is blank already.
        text: Embedded prompts, (B, N, D).
        null_text: Embedded negative prompts; None leaves the branch out.
    """
    first = {**full.to_dict(), "encoder_hidden_states": text}
    branches = [first]
    for dropped in (no_references, no_anchor):
        branches.append(first if dropped is None else {**dropped.to_dict(), "encoder_hidden_states": text})
    return branches if null_text is None else [*branches, {**first, "encoder_hidden_states": null_text}]


class ConditionEncoder:
    """Runs the adapters and the anchor patching of both networks once per frame, and once per stream for blank ones.

    The features depend on neither time nor text, so one frame's serve all its evaluations; results stay bit-identical.
    """

    def __init__(self, model: MaskedDiffusionModel):
        self.model = model
        self._blank: dict[str, tuple[Tensor, ...]] = {}

    def __call__(
        self,
        full: ReferenceConditions,
        no_references: ReferenceConditions | None,
        no_anchor: ReferenceConditions | None,
    ) -> tuple[ReferenceConditions, ReferenceConditions | None, ReferenceConditions | None]:
        """Add encodings to the three conditions of one frame; None stays None."""
        for name, network in (("unet_encoded", self.model.unet), ("mask_encoded", self.model.mask_network)):
            if network is None:
                continue
            features = tuple(network.encode_references(full.references))
            tokens = network.encode_anchor(full.anchor)
            full = replace(full, **{name: EncodedConditions(features, tokens)})
            if no_anchor is not None:
                encoded = EncodedConditions(features, network.encode_anchor(no_anchor.anchor))
                no_anchor = replace(no_anchor, **{name: encoded})
            if no_references is not None:
                if name not in self._blank:
                    self._blank[name] = tuple(network.encode_references(no_references.references))
                no_references = replace(no_references, **{name: EncodedConditions(self._blank[name], tokens)})
        return full, no_references, no_anchor
