"""ART-V: text to video one frame at a time, each from the two frames before it and an anchor (arXiv:2311.18834)."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from longvid.modules.anchored_unet import AnchoredUNet
from longvid.modules.masked_diffusion import MaskedDiffusionModel
from longvid.pipelines.art_v_request import ARTVRequest, check_art_v, first_frames, pixels_of
from longvid.pipelines.base import Generator, LongVideoPipeline
from longvid.pipelines.frame_predictor import Branches, ConditionEncoder, FramePredictor, branch_conditions
from longvid.pipelines.references import BLANKS, NoisyFrames, ReferenceRules, reference_conditions
from longvid.pipelines.request import VideoRequest, collects, streams
from longvid.pipelines.seeding import window_generator
from longvid.pipelines.window_frames import WindowFrames
from longvid.samplers.noise_augmentation import augment
from longvid.video.codec import encode_video
from longvid.video.state import StreamState
from longvid.video.windows import Window, plan_windows


@dataclass(frozen=True)
class ARTVConditions:
    """What one stream is made from, encoded once.

    Attributes:
        request: The checked request.
        text: Embedded prompts of every segment, (S, B, N, D).
        null_text: Embedded negative prompts of every segment, or None without text guidance.
        blank: The blank latent, (B, C, h, w).
        context: Context of the first frame: empty, or from a given video.
        encoder: Keeps what the adapters made of blank references.
    """

    request: ARTVRequest
    text: Tensor
    null_text: Tensor | None
    blank: Tensor
    context: dict[str, Tensor]
    encoder: ConditionEncoder


class ARTVPipeline(LongVideoPipeline):
    r"""Makes long videos frame by frame: every frame is denoised from text, two reference frames and an anchor frame.

    The predicted noise joins what a network predicts with what the newest reference implies, by a predicted mask
    (Eq. 7); references and anchor are noise-augmented (Sec. 3.3); guidance has four branches (Eq. 8). The first frame
    is made from blank references, or given.

    Args:
        vae: Image VAE.
        text_encoder: CLIP text model; its last hidden state is read, as in Stable Diffusion.
        tokenizer: Its tokenizer.
        scheduler: Any diffusers noise scheduler; the paper uses `DPMPP2SAncestralScheduler`.
        unet: Network of the dynamic noise.
        mask_network: Network of the mask; None predicts the dynamic noise alone (the paper's baseline).
        static_noise: What the newest reference implies: "ref_minus_noisy" (Sec. 3.2), "noisy_minus_ref" (Fig. 3) or
            "scaled" (exact for a still image).
        mask_activation: "sigmoid", "hard_sigmoid" or "clamp".
        prediction_type: What `unet` predicts, "epsilon" (the paper) or "v_prediction", whatever the scheduler takes.
        blank: What blank frames are: "zeros" in latent space, "encoded_black" or "encoded_gray" images.
        static_ref: Whether the mask copies from the "clean" or the noise-"augmented" reference.
        null_ref_static: What it copies where references are blank: the "blank" frame or nothing ("zero_mask").
        ref_order: Order of the references in the channels, "newest_first" or "oldest_first".
        call_defaults: Call arguments this model recommends, such as `{"num_inference_steps": 20}`.

    Raises:
        ValueError: for an option or a call default that does not exist.
    """

    _optional_components: ClassVar[list[str]] = ["mask_network"]
    method_defaults: ClassVar[dict[str, Any]] = {
        **LongVideoPipeline.method_defaults,
        "reference_guidance_scale": 0.25,
        "anchor_guidance_scale": 0.25,
        "noise_level": 200,
        "redraw": "frame",
        "reencode": False,
        "batched_guidance": True,
    }

    stream = streams(ARTVRequest)
    __call__ = collects(ARTVRequest)

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        unet: AnchoredUNet,
        mask_network: AnchoredUNet | None = None,
        static_noise: str = "ref_minus_noisy",
        mask_activation: str = "sigmoid",
        prediction_type: str = "epsilon",
        blank: str = "zeros",
        static_ref: str = "clean",
        null_ref_static: str = "blank",
        ref_order: str = "newest_first",
        call_defaults: dict[str, Any] | None = None,
    ):
        super().__init__()
        if blank not in BLANKS:
            raise ValueError(f"blank must be one of {', '.join(BLANKS)}; got {blank!r}")
        unknown = sorted(set(call_defaults or {}) - ARTVRequest.field_names())
        if unknown:
            raise ValueError(f"call_defaults must name arguments of the call; got {', '.join(unknown)}")
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
            unet=unet,
            mask_network=mask_network,
        )
        self.register_to_config(
            static_noise=static_noise,
            mask_activation=mask_activation,
            prediction_type=prediction_type,
            blank=blank,
            static_ref=static_ref,
            null_ref_static=null_ref_static,
            ref_order=ref_order,
            call_defaults=call_defaults,
        )
        ReferenceRules(static_ref, null_ref_static, ref_order)  # refuses unknown ones

    @classmethod
    def from_base(cls, base: str | os.PathLike | DiffusionPipeline, **options: Any) -> Self:
        """Grow a Stable Diffusion model into an ART-V model with every new part at the identity; see `grow`."""
        from longvid.pipelines.art_v_growth import grow

        return cls(**grow(base, **options))

    # --- what training and sampling share ----------------------------------------------------------------------------

    def masked_diffusion(self) -> MaskedDiffusionModel:
        """The two networks as one model of the noise; it owns no weights and lets gradients through."""
        options = {name: self.config[name] for name in ("static_noise", "mask_activation", "prediction_type")}
        return MaskedDiffusionModel(self.unet, self.mask_network, **options)

    @property
    def rules(self) -> ReferenceRules:
        """How references are laid out, for `references.reference_conditions`."""
        return ReferenceRules(self.config.static_ref, self.config.null_ref_static, self.config.ref_order)

    def blank_latents(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """The latent of a blank frame, (1, C, h, w), for a size in pixels, on the pipeline's device by default."""
        factor, device = self.vae_scale_factor, device or self._execution_device
        if self.config.blank == "zeros":
            return torch.zeros((1, self.latent_channels, height // factor, width // factor), device=device)
        level = -1.0 if self.config.blank == "encoded_black" else 0.0
        return encode_video(self.vae, torch.full((1, 3, 1, height, width), level, device=device))[:, :, 0]

    # --- the hooks of the loop ---------------------------------------------------------------------------------------

    @property
    def size_multiple(self) -> int:
        """Pixels that height and width must be a multiple of: one anchor patch."""
        patch = self.unet.config.anchor_patch if self.unet.config.anchor_injection != "none" else 1
        return self.vae_scale_factor * patch

    def check_inputs(self, request: VideoRequest) -> ARTVRequest:
        """Fill the defaults in, refuse what cannot be made, and turn images into pixels; see `pixels_of`."""
        request = cast(ARTVRequest, super().check_inputs(request))
        table = getattr(self.scheduler, "alphas_cumprod", None)
        if table is None:
            raise ValueError(f"expected a noise scheduler with alphas_cumprod; got {type(self.scheduler).__name__}")
        num_levels = min(self.unet.config.num_levels, len(table))
        check_art_v(request, num_levels=num_levels, has_masks=self.mask_network is not None)
        return pixels_of(request)

    def plan(self, request: VideoRequest) -> Sequence[Window]:
        """One window per frame."""
        return plan_windows(sys.maxsize if request.num_frames == math.inf else int(request.num_frames or 0), size=1)

    def encode_conditions(self, request: VideoRequest) -> ARTVConditions:
        """Encode text of all segments, the given frames and the blank one."""
        request = cast(ARTVRequest, request)
        text, null_text = self.encode_segments(request)
        context = {}
        if request.video is not None:
            newest, older, anchor = self._encode(request.video).unbind(2)
            context = {"newest": newest, "older": older, "anchor": anchor}
        blank = self.blank_latents(*request.size, self._device).to(self.unet.dtype)
        encoder = ConditionEncoder(self.masked_diffusion())
        return ARTVConditions(request, text, null_text, blank.expand(request.batch_size, -1, -1, -1), context, encoder)

    def first_context(self, conditions: ARTVConditions) -> dict[str, Tensor]:
        """The last frames of a given video, else nothing."""
        return conditions.context

    def given(self, window: Window, conditions: ARTVConditions, *, generator: Generator) -> WindowFrames | None:
        """The first frame, if it is the user's or another pipeline's; it comes back as it is."""
        request = conditions.request
        if window.index > 0:
            return None
        pixels = request.image if request.first_frame_pipeline is None else first_frames(request, generator)
        return None if pixels is None else WindowFrames(self.vae, pixels=pixels.to(self._device))

    def predictor(
        self,
        window: Window,
        state: StreamState,
        conditions: ARTVConditions,
        *,
        generator: Generator,
        extras: dict[str, list[Tensor]],
    ) -> FramePredictor:
        """References, anchor, text and masks of one frame as `predict(sample, timestep)`."""
        request = conditions.request
        branches = partial(self._branches, window, state, conditions, generator=generator)
        return FramePredictor(
            conditions.encoder.model,
            self.scheduler,
            branches=branches() if request.redraw == "frame" else branches,
            weights=partial(self._weights, request),
            batched=bool(request.batched_guidance),
            masks=extras.setdefault("masks", []) if request.output_masks else None,
            processes=self.processes,
        )

    def next_context(
        self, window: Window, state: StreamState, conditions: ARTVConditions, frames: WindowFrames
    ) -> dict[str, Tensor]:
        """The newest two frames, and the anchor: the first frame, then the last one of the prompt before (App. D)."""
        latents = frames.latents
        if conditions.request.reencode:
            latents = encode_video(self.vae, frames.pixels.clamp(-1, 1))
        newest = latents[:, :, -1]
        older = state.context.get("newest", newest)
        border = window.stop in conditions.request.prompts.starts
        anchor = newest if border else state.context.get("anchor", newest)
        return {"newest": newest, "older": older, "anchor": anchor}

    def context_shapes(self, request: VideoRequest) -> dict[str, tuple[int, ...]]:
        """Three latents, (B, C, h, w) each."""
        sides = (size // self.vae_scale_factor for size in request.size)
        return dict.fromkeys(("newest", "older", "anchor"), (request.batch_size, self.latent_channels, *sides))

    # --- inside a frame ----------------------------------------------------------------------------------------------

    def _branches(
        self, window: Window, state: StreamState, conditions: ARTVConditions, *, generator: Generator
    ) -> Branches:
        """Draw the references' noise, and lay the conditions of the four branches out."""
        request, blank, once = conditions.request, conditions.blank, conditions.request.redraw == "frame"
        noise_level = int(request.noise_level or 0)
        segment = request.prompts.segment(window.start)
        frames = None
        if state.context:
            anchor_generator = window_generator(state.keys, -1 - segment) if once else generator
            frames = self._noisy_frames(state.context, noise_level, generator, anchor_generator)
        level = torch.full((request.batch_size,), noise_level, device=blank.device)
        full = reference_conditions(frames, blank, level, rules=self.rules)
        no_references = no_anchor = None
        if frames is not None:
            no_references = reference_conditions(frames, blank, level, keep_references=False, rules=self.rules)
            no_anchor = replace(full, anchor=blank)
        if once and not hasattr(self.unet, "_diffusers_hook"):  # group offload moves weights inside forward only
            full, no_references, no_anchor = conditions.encoder(full, no_references, no_anchor)
        null_text = None if conditions.null_text is None else conditions.null_text[segment]
        return branch_conditions(full, no_references, no_anchor, conditions.text[segment], null_text)

    def _noisy_frames(
        self, context: dict[str, Tensor], level: int, generator: Generator, anchor_generator: Generator
    ) -> NoisyFrames:
        device, dtype = self._device, self.unet.dtype
        clean = {name: latents.to(device) for name, latents in context.items()}
        sources = {"newest": generator, "older": generator, "anchor": anchor_generator}
        noisy = {name: augment(clean[name], level, self.scheduler, generator=g) for name, g in sources.items()}
        return NoisyFrames(
            **{name: latents.to(dtype) for name, latents in noisy.items()}, clean=clean["newest"].to(dtype)
        )

    def _weights(self, request: ARTVRequest) -> tuple[float, float, float]:
        text = self.guidance_scale - 1 if self.do_classifier_free_guidance else 0.0
        return request.reference_guidance_scale or 0.0, request.anchor_guidance_scale or 0.0, text

    def _encode(self, pixels: Tensor) -> Tensor:
        return encode_video(self.vae, pixels.to(self._device))
