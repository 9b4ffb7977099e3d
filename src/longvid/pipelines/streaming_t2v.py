"""StreamingT2V: text to video in overlapping chunks, with a short-term and a long-term memory (arXiv:2403.14773)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from longvid.modules.appearance import AppearancePreservationModule
from longvid.modules.conditional_attention import ConditionalAttentionModule
from longvid.modules.image_preprocessing import clip_pixels
from longvid.modules.unet import VideoUNet
from longvid.pipelines.base import Generator, LongVideoPipeline
from longvid.pipelines.chunk_plan import ChunkPlan, plan_chunks
from longvid.pipelines.chunk_predictor import ChunkPredictor, chunk_branches
from longvid.pipelines.first_chunk import first_chunk
from longvid.pipelines.request import VideoRequest, collects, streams
from longvid.pipelines.streaming_t2v_request import StreamingT2VRequest, check_streaming, pixels_of
from longvid.pipelines.window_frames import WindowFrames
from longvid.video.codec import decode_video, encode_video
from longvid.video.state import StreamState
from longvid.video.windows import Window

CONTEXTS = ("pixels", "latents")


@dataclass(frozen=True)
class StreamingConditions:
    """What one stream is made from, encoded once.

    Attributes:
        request: The checked request, with pixels for images.
        text: Embedded prompts of every segment, (S, B, N, D).
        null_text: Embedded negative prompts of every segment, or None without text guidance.
        null_anchor: Embedding of the blank anchor, (B, E), or None without APM.
        context: Context of the first chunk: empty, or from a given video or image.
    """

    request: StreamingT2VRequest
    text: Tensor
    null_text: Tensor | None
    null_anchor: Tensor | None
    context: dict[str, Tensor]


class StreamingT2VPipeline(LongVideoPipeline):
    r"""Makes long videos in chunks that overlap, each continuing the last frames of the one before.

    The first chunk comes from the UNet alone, from another pipeline, from an image or from a given video. Behind it,
    every chunk is denoised as a whole: its first `overlap` frames make the context frames again and are thrown away,
    the others are new. CAM merges features of the context frames into the UNet's skip connections (short-term memory,
    Sec. 4.1); APM mixes an anchor frame into the text of every text layer (long-term memory, Sec. 4.2).

    Args:
        vae: Image VAE.
        text_encoder: CLIP text model; its last hidden state is read.
        tokenizer: Its tokenizer.
        scheduler: Any diffusers noise scheduler; the paper uses DDIM with eta 1.
        unet: Video UNet in ModelScope's layout.
        cam: Conditions the UNet on context frames: CAM, or any module with the methods of `FrameConditioning`.
        apm: Conditions its text layers on the anchor; None leaves the long-term memory out.
        image_encoder: CLIP image model that embeds the anchor for APM.
        chunk_size: Frames per chunk.
        overlap: Frames that a chunk makes again.
        context: What is kept of the last frames between two chunks: "pixels" (the released code), or "latents", which
            need less memory and are decoded once more.
        call_defaults: Call arguments this model recommends, such as `{"num_inference_steps": 20}`.

    Raises:
        ValueError: for an option or a call default that does not exist, or `overlap` outside 1 to `chunk_size` - 1.
    """

    _optional_components: ClassVar[list[str]] = ["apm", "image_encoder"]
    model_cpu_offload_seq = "text_encoder->image_encoder->apm->unet->vae"
    method_defaults: ClassVar[dict[str, Any]] = {
        **LongVideoPipeline.method_defaults,
        "num_frames": 24,
        "eta": 1.0,
        "batched_guidance": True,
    }

    stream = streams(StreamingT2VRequest)
    __call__ = collects(StreamingT2VRequest)

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        unet: VideoUNet,
        cam: ConditionalAttentionModule,
        apm: AppearancePreservationModule | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        chunk_size: int = 16,
        overlap: int = 8,
        context: str = "pixels",
        call_defaults: dict[str, Any] | None = None,
    ):
        super().__init__()
        if not 0 < overlap < chunk_size:
            raise ValueError(
                f"overlap must be from 1 to chunk_size - 1; got overlap={overlap}, chunk_size={chunk_size}"
            )
        if context not in CONTEXTS:
            raise ValueError(f"context must be one of {', '.join(CONTEXTS)}; got {context!r}")
        if apm is not None and image_encoder is None:
            raise ValueError("apm reads embeddings of the anchor frame: expected an image_encoder too; got None")
        unknown = sorted(set(call_defaults or {}) - StreamingT2VRequest.field_names())
        if unknown:
            raise ValueError(f"call_defaults must name arguments of the call; got {', '.join(unknown)}")
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
            unet=unet,
            cam=cam,
            apm=apm,
            image_encoder=image_encoder,
        )
        self.register_to_config(chunk_size=chunk_size, overlap=overlap, context=context, call_defaults=call_defaults)

    @classmethod
    def from_base(cls, base: str | os.PathLike | DiffusionPipeline, **options: Any) -> Self:
        """Grow a text-to-video model into a StreamingT2V model with CAM and APM at the identity; see `grow`."""
        from longvid.pipelines.streaming_t2v_growth import grow

        return cls(**grow(base, **options))

    # --- the hooks of the loop ---------------------------------------------------------------------------------------

    def check_inputs(self, request: VideoRequest) -> StreamingT2VRequest:
        """Fill the defaults in, refuse what cannot be made, and turn images into pixels; see `pixels_of`."""
        request = cast(StreamingT2VRequest, super().check_inputs(request))
        check_streaming(request, chunk_size=self.config.chunk_size, has_anchor=self.apm is not None)
        return pixels_of(request, overlap=self.config.overlap)

    def plan(self, request: VideoRequest) -> ChunkPlan:
        """A first chunk (one frame for an image, none for a video to be continued), then chunks with context."""
        return plan_chunks(
            request.num_frames or 0,
            size=self.config.chunk_size,
            overlap=self.config.overlap,
            opening=self._opening(cast(StreamingT2VRequest, request)),
        )

    def encode_conditions(self, request: VideoRequest) -> StreamingConditions:
        """Encode the text of all segments, the blank anchor, and what the user brought."""
        request = cast(StreamingT2VRequest, request)
        text, null_text = self.encode_segments(request)
        context, null_anchor = {}, None
        if request.video is not None and request.starts_over:
            context["frames"] = self._kept(WindowFrames(self.vae, pixels=request.video.to(self._device)))
        if self.apm is not None:
            null_anchor = self.embed_anchor(torch.zeros(1, 3, *request.size)).expand(request.batch_size, -1)
            if request.anchor_image is not None:
                context["anchor"] = self.embed_anchor(request.anchor_image)
        return StreamingConditions(request, text, null_text, null_anchor, context)

    def first_context(self, conditions: StreamingConditions) -> dict[str, Tensor]:
        """What a given video or image leaves, else nothing."""
        return conditions.context

    def given(self, window: Window, conditions: StreamingConditions, *, generator: Generator) -> WindowFrames | None:
        """The image, or the chunk of another pipeline; it comes back as it is."""
        request = conditions.request
        if window.index > 0 or request.video is not None:
            return None
        if request.first_chunk_pipeline is not None:
            pixels = first_chunk(request, generator, self.config.chunk_size)[:, :, window.keep]
        else:
            pixels = request.image
        return None if pixels is None else WindowFrames(self.vae, pixels=pixels.to(self._device))

    def predictor(
        self,
        window: Window,
        state: StreamState,
        conditions: StreamingConditions,
        *,
        generator: Generator,
        extras: dict[str, list[Tensor]],
    ) -> ChunkPredictor:
        """The UNet with CAM and APM for one chunk; without either for a first chunk that continues nothing."""
        request, context = conditions.request, state.context
        segment = request.prompts.segment(window.new.start)
        continues = "frames" in context
        frames = self._encode_frames(context["frames"]) if continues else None
        anchor = context.get("anchor") if continues else None
        images = None if anchor is None else (conditions.null_anchor, anchor.to(self._device))

        def contexts(text: Tensor, with_anchor: bool) -> Any:
            if images is None or self.apm is None:
                return text
            return self.apm(text, cast(Tensor, images[with_anchor]).to(text.dtype))

        null_text = None if conditions.null_text is None else conditions.null_text[segment]
        return ChunkPredictor(
            self.unet,
            self.cam if continues else None,
            branches=chunk_branches(conditions.text[segment], null_text, frames, contexts),
            weights=lambda: self._weights(request),
            batched=bool(request.batched_guidance),
            processes=self.processes,
        )

    def next_context(
        self, window: Window, state: StreamState, conditions: StreamingConditions, frames: WindowFrames
    ) -> dict[str, Tensor]:
        """The last frames, and the anchor's embedding; a video shorter than the context is preceded by a still."""
        kept = self._kept(frames)
        if "frames" in state.context:
            kept = torch.cat([state.context["frames"].to(kept), kept], dim=2)
        missing = max(0, self.config.overlap - kept.shape[2])
        still = kept[:, :, :1].expand(-1, -1, missing, -1, -1)
        context = {"frames": torch.cat([still, kept], dim=2)[:, :, -self.config.overlap :]}
        if self.apm is not None:
            anchor = state.context.get("anchor")
            if anchor is None:  # behind the first chunk of a video that began with nothing
                anchor = self.embed_anchor(frames.pixels[:, :, conditions.request.anchor_frame].clamp(-1, 1))
            context["anchor"] = anchor
        return context

    def context_shapes(self, request: VideoRequest) -> dict[str, tuple[int, ...]]:
        """The last frames, (B, C, overlap, H, W), and the anchor's embedding, (B, E)."""
        height, width = request.size
        channels, factor = (self.latent_channels, self.vae_scale_factor) if self.config.context == "latents" else (3, 1)
        shape = (request.batch_size, channels, self.config.overlap, height // factor, width // factor)
        if self.apm is None:
            return {"frames": shape}
        return {"frames": shape, "anchor": (request.batch_size, cast(Any, self.image_encoder).config.projection_dim)}

    # --- inside a chunk ----------------------------------------------------------------------------------------------

    def embed_anchor(self, pixels: Tensor) -> Tensor:
        """Embed anchor frames as APM was taught: pixels (B, 3, H, W) in [-1, 1] -> (B, E)."""
        encoder = cast(Any, self.image_encoder)
        images = clip_pixels(pixels.to(self._device or encoder.device, torch.float32), encoder.config.image_size)
        return encoder(images.to(encoder.dtype)).image_embeds

    def _opening(self, request: StreamingT2VRequest) -> int:
        if request.video is not None:
            return 0
        alone = request.image is not None and request.first_chunk_pipeline is None
        return 1 if alone else self.config.chunk_size

    def _kept(self, frames: WindowFrames) -> Tensor:
        return frames.latents if self.config.context == "latents" else frames.pixels.clamp(-1, 1)

    def _encode_frames(self, kept: Tensor) -> Tensor:
        """Context frames as they were kept, in the form that CAM reads, encoded by it."""
        frames = kept.to(self._device)
        if self.config.context != self.cam.conditions_on:
            if self.config.context == "latents":
                frames = decode_video(self.vae, frames).clamp(-1, 1)
            else:
                frames = encode_video(self.vae, frames)
        return self.cam.encode_frames(frames.to(self.unet.dtype), num_frames=self.config.chunk_size)

    def _weights(self, request: StreamingT2VRequest) -> tuple[float, float]:
        text = self.guidance_scale if self.do_classifier_free_guidance else 1.0
        return text, text if request.anchor_guidance_scale is None else request.anchor_guidance_scale
