"""HARIVO: text to video with a frozen text-to-image model and temporal layers in it (arXiv:2410.07763)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, SchedulerMixin, UNetMotionModel
from diffusers.loaders import IPAdapterMixin, StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from longvid.modules.frame_tokens import FrameTokenGenerator
from longvid.modules.mapping_network import MappingNetwork
from longvid.pipelines.base import Generator, LongVideoPipeline, Predict
from longvid.pipelines.clip_predictor import ClipControl, ClipPredictor
from longvid.pipelines.control_frames import ControlFrames
from longvid.pipelines.frame_context import empty_text, window_text
from longvid.pipelines.harivo_checks import check_embeds_length, check_lora, check_parts
from longvid.pipelines.harivo_conditions import HARIVOConditions
from longvid.pipelines.harivo_request import HARIVORequest, check_harivo
from longvid.pipelines.image_prompts import embeddings, image_list, num_ip_adapters
from longvid.pipelines.latent_places import OnDevice, OnHost
from longvid.pipelines.request import VideoRequest, collects, streams
from longvid.pipelines.seeding import window_generator
from longvid.pipelines.window_frames import WindowFrames
from longvid.pipelines.window_noise import noise_before
from longvid.pipelines.window_strategies import Joining
from longvid.samplers.mitigating_gradient import mitigated
from longvid.samplers.processes import ALONE, Processes
from longvid.video.host_memory import DEFAULT_LIMIT
from longvid.video.state import StreamState
from longvid.video.windows import Window


class HARIVOPipeline(LongVideoPipeline, TextualInversionLoaderMixin, IPAdapterMixin, StableDiffusionLoraLoaderMixin):
    r"""Makes videos with a frozen image model: temporal layers, a mapping network and frame-wise tokens are what it adds.

    A window of frames is denoised as a whole. At every step the mapping network adjusts the noisy latents, the UNet sees
    every frame with the text and a few tokens of its own, and the mitigating gradient draws neighbouring frames of the
    guided prediction together (Algorithm 1). What works with the image model works here: LoRA (`load_lora_weights`,
    `set_adapters`, `fuse_lora`), textual inversion (`load_textual_inversion`), IP-Adapter (`load_ip_adapter`),
    ControlNet (`controlnet=`), and DreamBooth checkpoints (`with_base`).

    Args:
        vae: Image VAE.
        text_encoder: CLIP text model; its last hidden state is read.
        tokenizer: Its tokenizer.
        scheduler: Any diffusers noise scheduler; the paper uses DDIM.
        unet: The image UNet with temporal layers in it, see `motion_unet`.
        mapping_network: Adjusts the latents that the UNet sees; None leaves them as they are.
        frame_tokens: Makes the frames' own text tokens; None gives every frame the text alone.
        controlnet: A ControlNet of the image model.
        image_encoder: CLIP image model; `load_ip_adapter` brings it.
        feature_extractor: Its image processor; `load_ip_adapter` makes it.
        window_size: Frames that are made at once; 24 in the paper.
        overlap: Frames that neighbouring windows of a longer video share.
        frame_token_mode: Tokens for windows of another length than they are made for: "slice", "interpolate", "tile";
            None slices shorter windows and interpolates longer ones. See `fit_tokens`.
        continuing_tokens: What windows behind the first hear: their prompt's "own" tokens of the places in a window, or
            those of an "empty" prompt, so that the overlap alone says how things move.
        tokens_for_negative: Whether the negative prompt has frame tokens too.
        controlnet_input: What the ControlNet sees: "mapped" latents or "raw" ones.
        controlnet_tokens: What it reads: the "text" or also the "frame" tokens.
        call_defaults: Call arguments this model recommends, such as `{"num_inference_steps": 20}`.

    Raises:
        ValueError: for an option or a call default that does not exist, a window that is longer than the temporal
            layers reach, or parts that do not fit each other.

    Source: HARIVO: Harnessing Text-to-Image Models for Video Generation (arXiv:2410.07763). Windows are this library's.
    """

    _optional_components: ClassVar[list[str]] = [
        "mapping_network", "frame_tokens", "controlnet", "image_encoder", "feature_extractor",
    ]  # fmt: skip
    model_cpu_offload_seq = "text_encoder->image_encoder->frame_tokens->unet->vae"
    method_defaults: ClassVar[dict[str, Any]] = {
        **LongVideoPipeline.method_defaults,
        "num_inference_steps": 25,
        "mg_scale": 40.0,
        "mg_two_sided": False,
        "strategy": "streamed",
        "batched_guidance": True,
        "host_memory_limit": DEFAULT_LIMIT,
    }

    spread_work = ("branches of the guidance", 'windows of the strategy "joint"')

    stream = streams(HARIVORequest)
    __call__ = collects(HARIVORequest)

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        unet: UNetMotionModel,
        mapping_network: MappingNetwork | None = None,
        frame_tokens: FrameTokenGenerator | None = None,
        controlnet: ControlNetModel | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        window_size: int = 24,
        overlap: int = 8,
        frame_token_mode: str | None = None,
        continuing_tokens: str = "own",
        tokens_for_negative: bool = True,
        controlnet_input: str = "mapped",
        controlnet_tokens: str = "text",
        call_defaults: dict[str, Any] | None = None,
    ):
        super().__init__()
        unknown = sorted(set(call_defaults or {}) - HARIVORequest.field_names())
        if unknown:
            raise ValueError(f"call_defaults must name arguments of the call; got {', '.join(unknown)}")
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler, unet=unet,
            mapping_network=mapping_network, frame_tokens=frame_tokens, controlnet=controlnet,
            image_encoder=image_encoder, feature_extractor=feature_extractor,
        )  # fmt: skip
        self.register_to_config(
            window_size=window_size,
            overlap=overlap,
            frame_token_mode=frame_token_mode,
            continuing_tokens=continuing_tokens,
            tokens_for_negative=tokens_for_negative,
            controlnet_input=controlnet_input,
            controlnet_tokens=controlnet_tokens,
            call_defaults=call_defaults,
        )
        check_parts(self)

    @classmethod
    def from_base(cls, base: str | os.PathLike | DiffusionPipeline, **options: Any) -> Self:
        """Put temporal layers, new ones or AnimateDiff's, into a Stable Diffusion model; see `grow_harivo`."""
        from longvid.pipelines.harivo_growth import grow_harivo

        return cls(**grow_harivo(base, **options))

    def with_base(self, base: str | os.PathLike | DiffusionPipeline, **load_options: Any) -> Self:
        """The same temporal parts around another image model of the same shape, such as a DreamBooth checkpoint.

        Args:
            base: A Stable Diffusion pipeline, or the folder, hub id or bundled name of one. Its VAE, text encoder,
                tokenizer and image UNet replace this pipeline's, which stays as it is.
            load_options: Arguments of `from_pretrained`, if `base` is a name.

        Raises:
            ValueError: if the parts do not fit the base, which is named.
        """
        from longvid.pipelines.harivo_growth import rebased

        return type(self)(**rebased(self, base, load_options))

    def load_lora_weights(self, pretrained_model_name_or_path_or_dict: Any, **options: Any) -> None:
        """Load a LoRA of the image model, or a motion LoRA; the arguments are those of Stable Diffusion pipelines.

        Raises:
            ValueError: if it was made for another base, which is named.
        """
        check_lora(self, pretrained_model_name_or_path_or_dict, options)
        super().load_lora_weights(pretrained_model_name_or_path_or_dict, **options)

    # --- the hooks of the loop ---------------------------------------------------------------------------------------

    def check_inputs(self, request: VideoRequest) -> HARIVORequest:
        """Fill the defaults in, refuse what cannot be made, and read the pictures."""
        check_parts(self)
        request = cast(HARIVORequest, super().check_inputs(request))
        check_harivo(request, num_adapters=num_ip_adapters(self.unet), has_control=self.controlnet is not None)
        check_embeds_length(self, request.prompt_embeds)
        if request.image is not None:
            request = replace(request, image=image_list(request.image, request.counts, self.image_encoder))
        if request.control is not None:
            control = ControlFrames(request.control, request.num_frames or 0, request.size, request.counts)
            request = replace(request, control=control)
        return request

    def plan(self, request: VideoRequest) -> Sequence[Window]:
        """What is denoised together, as the request's strategy lays it out."""
        strategy = cast(HARIVORequest, request).windows
        return strategy.plan(request.num_frames or 0, size=self.config["window_size"], overlap=self.config["overlap"])

    def encode_conditions(self, request: VideoRequest) -> HARIVOConditions:
        """Encode text of all segments, their frame tokens, and the images."""
        request = cast(HARIVORequest, request)
        text, null_text = self.encode_segments(request)
        generator, mode = self.frame_tokens, self.config["frame_token_mode"]
        null_generator = generator if self.config["tokens_for_negative"] else None
        return HARIVOConditions(
            request,
            window_text(text, generator, mode, empty=empty_text(self, null_text)),
            None if null_text is None else window_text(null_text, null_generator, mode),
            embeddings(self, request.image, request.image_embeds, counts=request.counts),
        )

    def predictor(
        self,
        window: Window,
        state: StreamState,
        conditions: HARIVOConditions,
        *,
        generator: Generator,
        extras: dict[str, list[Tensor]],
    ) -> Predict:
        """The clips of a window, joined by the request's strategy, under mitigating gradient sampling."""
        request = conditions.request
        known = noise = None
        if window.overlap:
            known, noise = state.context["latents"].to(self._device), self._noise_before(window, request, state.keys)
        joining = Joining(
            clip=lambda part, who=ALONE: self._replayed(self.clip(part, conditions=conditions, processes=who)),
            mitigate=partial(
                mitigated,
                scheduler=self.scheduler,
                scale=cast(Any, request.mg_scale),
                two_sided=bool(request.mg_two_sided),
                max_ratio=request.mg_max_ratio,
            ),
            size=self.config["window_size"],
            overlap=self.config["overlap"],
            scheduler=self.scheduler,
            generator=generator,
            known=known,
            noise=noise,
            place=self.place(request),
            processes=self.processes,
        )
        return request.windows.predictor(window, joining)

    def next_context(
        self, window: Window, state: StreamState, conditions: HARIVOConditions, frames: WindowFrames
    ) -> dict[str, Tensor]:
        """The latents that the next window begins with."""
        overlap, latents = self.config["overlap"], frames.latents
        if "latents" in state.context:
            latents = torch.cat([state.context["latents"].to(latents), latents], dim=2)
        return {"latents": latents[:, :, max(0, latents.shape[2] - overlap) :]} if overlap else {}

    def context_shapes(self, request: VideoRequest) -> dict[str, tuple[int, ...]]:
        """The last latents, (B, C, overlap, h, w), or all of a video that is shorter than the overlap."""
        count = min(self.config["overlap"], request.num_frames or 0)
        sides = (size // self.vae_scale_factor for size in request.size)
        return {"latents": (request.batch_size, self.latent_channels, int(count), *sides)} if count else {}

    def prepare_noise(
        self, window: Window, request: VideoRequest, generator: Generator, keys: tuple[int, ...]
    ) -> Tensor:
        """A window's starting noise; where it overlaps the window before, that window's."""
        noise = super().prepare_noise(window, request, generator, keys)
        if not window.overlap:
            return noise
        return torch.cat([self._noise_before(window, request, keys), noise[:, :, window.overlap :]], dim=2)

    def place(self, request: VideoRequest) -> OnDevice:
        """One window on the device, or a whole video on the host."""
        if not request.on_host:
            return super().place(request)
        return OnHost(self, request, self.config["window_size"])

    # --- inside a window ---------------------------------------------------------------------------------------------

    def clip(self, window: Window, *, conditions: HARIVOConditions, processes: Processes = ALONE) -> ClipPredictor:
        """The guided prediction for the frames of one window, which is what training trains."""
        request, control, pictures = conditions.request, None, None
        if request.control is not None:
            frames, pictures = request.control.inside(window.start, window.stop)
            control = self._control(request, frames) if frames else None
        return ClipPredictor(
            self.unet,
            self.mapping_network,
            branches=partial(conditions.branches, window, pictures),
            weight=lambda: self.guidance_scale - 1 if self.do_classifier_free_guidance else 0.0,
            batched=bool(request.batched_guidance),
            control=control,
            processes=processes,
        )

    def _control(self, request: HARIVORequest, frames: list[int]) -> ClipControl:
        reads_text_alone = self.config["controlnet_tokens"] == "text"
        length = self.frame_tokens.config["num_text_tokens"] if reads_text_alone and self.frame_tokens else None
        mapped = self.config["controlnet_input"] == "mapped"
        return ClipControl(self.controlnet, frames, request.control_scale, length, mapped)

    def _noise_before(self, window: Window, request: VideoRequest, keys: tuple[int, ...]) -> Tensor:
        draw = super().prepare_noise
        return noise_before(
            window, self.plan(request), lambda w: draw(w, request, window_generator(keys, w.index), keys)
        )

    def _default_size(self) -> dict[str, int]:
        return {**super()._default_size(), "num_frames": self.config["window_size"]}
