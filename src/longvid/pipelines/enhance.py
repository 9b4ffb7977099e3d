"""The video enhancer: SDEdit with shared noise and randomized blending over a video of any length (StreamingT2V)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet3DConditionModel
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from longvid.pipelines.checks import check_callback_tensors, check_steps
from longvid.pipelines.enhance_input import encoded_input, memory_for
from longvid.pipelines.enhance_predictor import video_predictor
from longvid.pipelines.enhance_request import EnhanceRequest, check_enhance, check_video_input
from longvid.pipelines.frame_sizes import wanted_size
from longvid.pipelines.inputs import open_video
from longvid.pipelines.output import EnhancedChunk, LongVideoPipelineOutput, package
from longvid.pipelines.request import collects, streams
from longvid.pipelines.seeding import draw_keys, window_generator
from longvid.pipelines.step_checkpoint import NoCheckpoint, checkpoint_of
from longvid.pipelines.text_pipeline import TextPipeline
from longvid.samplers.frame_steps import FrameSteps
from longvid.samplers.guidance_schedule import can_guide
from longvid.samplers.sdedit import history_option, sdedit_timesteps
from longvid.video.codec import decode_video
from longvid.video.host_memory import DEFAULT_LIMIT, fill_normal
from longvid.video.windows import fit_windows

Predict = Callable[[Tensor, Any], Tensor]
_NOISE, _CUTS, _STEPS = range(3)  # what is drawn from the keys, each from a generator of its own


class VideoEnhancerPipeline(TextPipeline):
    r"""Makes the frames of a given video anew, under a prompt, with a video model that sees a few of them at once.

    The video is encoded, made noisy up to a timestep (SDEdit), and denoised as a whole,

    .. math:: x_{T'} = \sqrt{\bar\alpha_{T'}}\, \mathcal{E}(v) + \sqrt{1 - \bar\alpha_{T'}}\, \epsilon,

    where every prediction is that of overlapping chunks, joined at random frames of their overlaps; noise is drawn for
    the whole video, so chunks share it. `stream` yields an `EnhancedChunk` after another when all steps are made;
    calling the pipeline collects them.

    Latents of the whole video are kept on the host, past `host_memory_limit` in temporary files that are mapped into
    memory, and only the chunk at work is on the device. Height and width
    that are no multiples of what the VAE takes are padded by repeating the border, and cut again. Any text-to-video
    model of diffusers with these components can be loaded: ModelScope (`ali-vilab/text-to-video-ms-1.7b`) and
    ZeroScope (`cerspense/zeroscope_v2_XL`), for instance.

    Args:
        vae: Image VAE.
        text_encoder: CLIP text model; its last hidden state is read.
        tokenizer: Its tokenizer.
        unet: Video UNet; sample (B, C, F, h, w), text (B, N, D).
        scheduler: Any diffusers noise scheduler.
        call_defaults: Call arguments this model recommends, such as `{"chunk_size": 16}`.

    Raises:
        ValueError: for a call default that does not exist.

    Source: StreamingT2V, Sec. 4.3 (arXiv:2403.14773); SDEdit (arXiv:2108.01073).
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prediction"]
    method_defaults: ClassVar[dict[str, Any]] = {
        "strength": 0.6,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "guidance_rescale": 0.2,
        "chunk_size": 24,
        "overlap": 8,
        "blending": "paper",
        "frames_per_batch": 8,
        "batched_guidance": True,
        "host_memory_limit": DEFAULT_LIMIT,
    }

    spread_work = ("chunks", "branches of the guidance, for a video of one chunk")

    stream = streams(EnhanceRequest, "EnhancedChunk")
    __call__ = collects(EnhanceRequest)

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet3DConditionModel,
        scheduler: SchedulerMixin,
        call_defaults: dict[str, Any] | None = None,
    ):
        super().__init__()
        unknown = sorted(set(call_defaults or {}) - EnhanceRequest.field_names())
        if unknown:
            raise ValueError(f"call_defaults must name arguments of the call; got {', '.join(unknown)}")
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_to_config(call_defaults=call_defaults)

    # --- before any work ---------------------------------------------------------------------------------------------

    def check_inputs(self, request: EnhanceRequest) -> EnhanceRequest:
        """Fill the defaults in, refuse what cannot be made, and open the video (its first frame is read).

        Raises:
            ValueError: naming what was expected and what came.
        """
        request = request.with_defaults(self.config.get("call_defaults") or {}, self.method_defaults)
        check_enhance(request)
        check_steps(self.scheduler, cast(int, request.num_inference_steps))
        check_callback_tensors(request.callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        if request.prompt is not None and self.text_encoder is None:
            raise ValueError("expected prompt_embeds, as this pipeline has no text encoder; got prompt")
        if not self._can_negate(request) and can_guide(request.guidance_scale):
            raise ValueError("guidance_scale above 1 needs negative_prompt_embeds where there is no text encoder")
        if self.unet.config.in_channels != self.latent_channels:
            raise ValueError(
                f"expected a unet with {self.latent_channels} input channels, those of the VAE's latents; "
                f"got {self.unet.config.in_channels}"
            )
        self._lay_out(request)
        source = open_video(request.video)
        batch_size = check_video_input(request, source)
        height, width = wanted_size((source.height, source.width), request.height, request.width)
        request = replace(request, video=source, height=height, width=width)
        if source.num_frames is not None:
            self._check_noise(request, batch_size, source.num_frames)
        return request

    def _check_noise(self, request: EnhanceRequest, batch_size: int, num_frames: int) -> None:
        height, width = (-(-size // self.size_multiple) for size in (request.height or 0, request.width or 0))
        expected = (batch_size, self.latent_channels, num_frames, height, width)
        if request.latents is not None and tuple(request.latents.shape) != expected:
            raise ValueError(f"latents must have shape {expected}; got {tuple(request.latents.shape)}")

    def _lay_out(self, request: EnhanceRequest) -> Tensor:
        """Set the scheduler's timesteps and give those that are made."""
        start = request.start(self.scheduler.config.num_train_timesteps)
        return sdedit_timesteps(self.scheduler, request.num_inference_steps or 0, start)

    def _can_negate(self, request: EnhanceRequest) -> bool:
        return self.text_encoder is not None or request.negative_prompt_embeds is not None

    # --- the whole ---------------------------------------------------------------------------------------------------

    def generate(self, request: EnhanceRequest) -> Iterator[EnhancedChunk]:
        """Check a request and start its stream; the keys of its noise are drawn here."""
        with self.processes.session():
            request = self.check_inputs(request)
            generator = request.generator
            keys = self.processes.from_main(lambda: draw_keys(generator))
        return self.processes.in_session(self._chunks(request, keys))

    def collect(self, request: EnhanceRequest) -> LongVideoPipelineOutput | tuple:
        """Make all frames of a request and package them; they are collected in host memory."""
        frames = torch.cat([chunk.frames.cpu() for chunk in self.generate(request)], dim=2)
        output = LongVideoPipelineOutput(package(frames, request.output_type))
        return output if request.return_dict else output.to_tuple()

    @torch.no_grad()
    def _chunks(self, request: EnhanceRequest, keys: tuple[int, ...]) -> Iterator[EnhancedChunk]:
        self._interrupt, self._device = False, self._execution_device
        self._guidance_scale = request.guidance_scale or 0.0
        try:
            batch_size = check_video_input(request, request.video)
            conditions = self.encode_conditions(request, batch_size)
            latents = self.encode_input(request, batch_size)
            self._check_noise(request, batch_size, latents.shape[2])
            windows = fit_windows(latents.shape[2], request.chunk_size or 0, request.overlap or 0)
            timesteps = self._lay_out(request)
            generators = {"cuts": window_generator(keys, _CUTS), "steps": window_generator(keys, _STEPS)}
            empty = memory_for(latents.shape, request).empty
            steps = FrameSteps(self.scheduler, latents.shape[2], request.chunk_size, empty)
            checkpoint = checkpoint_of(request, keys, latents, self)
            done = checkpoint.restore(latents, steps, generators)
            with self._bar("denoising", len(timesteps) * len(windows), "chunk") as bar:
                bar.update(done * len(windows))
                predict = video_predictor(
                    self, conditions, request, windows, generator=generators["cuts"], empty=empty, bar=bar
                )
                if not done:
                    latents = self.add_noise(latents, timesteps, request, keys, steps)
                latents = self.denoise(
                    predict, latents, steps, timesteps=timesteps, request=request, generators=generators,
                    checkpoint=checkpoint, done=done,
                )  # fmt: skip
            with self._bar("decoding", latents.shape[2], "frame") as bar:
                for window in windows:
                    chunk = EnhancedChunk(self._frames(latents[:, :, window.new], request), window.new.start)
                    bar.update(chunk.num_frames)
                    if request.callback_on_chunk_end is not None:
                        request.callback_on_chunk_end(self, window.index, chunk)
                    yield chunk
            if not self.interrupt:
                checkpoint.remove()
        finally:  # also when the consumer stops early
            self.maybe_free_model_hooks()

    # --- its parts ---------------------------------------------------------------------------------------------------

    def encode_conditions(self, request: EnhanceRequest, batch_size: int) -> list[dict[str, Tensor]]:
        """Encode the prompts, and the negative ones if they can be: one dict with "text" (B, N, D) for each."""
        texts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        self._warn_of_unknown_words(texts, request.negative_prompt)
        videos = batch_size // request.num_videos_per_prompt
        copies = videos // request.num_prompts
        embeds, negative = (
            None if rows is None else rows.repeat_interleave(videos // len(rows), dim=0)
            for rows in (request.prompt_embeds, request.negative_prompt_embeds)
        )
        encoded = self.encode_prompt(
            None if texts is None else [*texts] * copies,
            self._device,
            request.num_videos_per_prompt,
            self._can_negate(request),
            request.negative_prompt,
            embeds,
            negative,
        )
        return [{"text": rows.to(self.unet.dtype)} for rows in encoded if rows is not None]

    def encode_input(self, request: EnhanceRequest, batch_size: int) -> Tensor:
        """Read, scale, pad and encode the given video, a few frames at a time, and repeat it for the batch.

        Shapes: -> (B, C, F, h, w) on the host, at the padded size.
        """
        with self._bar("encoding", request.video.num_frames, "frame") as bar:
            return encoded_input(self, request, batch_size, bar)

    def add_noise(
        self, latents: Tensor, timesteps: Tensor, request: EnhanceRequest, keys: tuple[int, ...], steps: FrameSteps
    ) -> Tensor:
        """Make the latents of the whole video noisy, with noise that all chunks share."""
        noise, memory = request.latents, memory_for(latents.shape, request)
        if noise is None:
            noise = fill_normal(memory.empty(latents.shape), window_generator(keys, _NOISE))
        return steps.add_noise(latents, noise, timesteps[:1].repeat(len(latents)))

    def denoise(
        self,
        predict: Predict,
        latents: Tensor,
        steps: FrameSteps,
        *,
        timesteps: Tensor,
        request: EnhanceRequest,
        generators: Mapping[str, Any],
        checkpoint: NoCheckpoint,
        done: int = 0,
    ) -> Tensor:
        """Run the scheduler, whatever scheduler it is, over noisy latents of the whole video; `done` steps are made."""
        options = self._step_options(request, generators["steps"])
        self._num_timesteps = len(timesteps)
        for step, timestep in enumerate(timesteps[done:], start=done):
            if self.interrupt:
                break
            self._timestep = timestep
            prediction = predict(steps.scaled(latents, timestep), timestep)
            latents = steps.step(prediction, timestep, latents, **options, **history_option(self.scheduler, step))
            if request.callback_on_step_end is not None:
                latents = self._call_back(request, step, timestep, latents=latents, prediction=prediction)
            del prediction  # of the whole video: gone before the next one is made
            checkpoint.save(step + 1, latents, steps, generators)
        return latents

    def _frames(self, latents: Tensor, request: EnhanceRequest) -> Tensor:
        if request.output_type == "latent":
            return latents
        pixels = decode_video(self.vae, latents.to(self._device), frames_per_batch=request.frames_per_batch or 0)
        return (pixels[..., : request.height, : request.width] / 2 + 0.5).clamp(0, 1)

    def _bar(self, what: str, total: int | None, unit: str) -> Any:
        own = {"desc": what, "total": total, "unit": unit}
        return tqdm(**{**getattr(self, "_progress_bar_config", {}), **own})
