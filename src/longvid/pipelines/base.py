"""The outer loop that every method shares: check, encode, plan, then window by window denoise, decode and hand out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

import longvid
from longvid.pipelines.checks import (
    check_callback_tensors,
    check_embeds_width,
    check_place,
    check_request,
    check_resume,
    check_steps,
)
from longvid.pipelines.latent_places import OnDevice
from longvid.pipelines.output import LongVideoPipelineOutput, package
from longvid.pipelines.request import VideoRequest, collects, streams
from longvid.pipelines.seeding import draw_keys, window_generator
from longvid.pipelines.step_checkpoint import NoCheckpoint
from longvid.pipelines.text_pipeline import TextPipeline
from longvid.pipelines.window_frames import WindowFrames
from longvid.video.state import StreamState, VideoChunk
from longvid.video.windows import Window

Predict = Callable[[Tensor, Tensor], Tensor]
Generator = torch.Generator | list[torch.Generator]


class LongVideoPipeline(TextPipeline):
    """Makes videos of any length, window by window, in constant memory.

    `stream` yields a `VideoChunk` per window; calling the pipeline collects the chunks and gives the same bits. A
    method is a subclass that fills the hooks `check_inputs`, `encode_conditions`, `plan`, `predictor`, `given`,
    `first_context` and `next_context`, and names its request (`stream = streams(MyRequest)`,
    `__call__ = collects(MyRequest)`).

    Components every method has: `vae`, `text_encoder`, `tokenizer`, `scheduler`, `unet`.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prediction"]
    method_defaults: ClassVar[dict[str, Any]] = {
        "num_frames": 16,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "noise_scale": 1.0,
    }

    stream = streams(VideoRequest)
    __call__ = collects(VideoRequest)

    # --- hooks of a method -------------------------------------------------------------------------------------------

    def check_inputs(self, request: VideoRequest) -> VideoRequest:
        """Fill the defaults in and refuse what cannot be made.

        Raises:
            ValueError: naming what was expected and what came.
        """
        defaults = {**self.method_defaults, **self._default_size(), **(self.config.get("call_defaults") or {})}
        default_num_frames = defaults.pop("num_frames")
        request = request.with_defaults(defaults).laid_out(default_num_frames)
        check_request(
            request,
            size_multiple=self.size_multiple,
            latent_factor=self.vae_scale_factor,
            latent_channels=self.latent_channels,
        )
        check_steps(self.scheduler, cast(int, request.num_inference_steps))
        check_embeds_width(request.prompt_embeds, self.unet.config.cross_attention_dim)
        if request.prompts.texts is not None and self.text_encoder is None:
            raise ValueError("expected prompt_embeds, as this pipeline has no text encoder; got prompt")
        check_callback_tensors(request.callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        if request.resume is not None:
            check_resume(request.resume, request, self.known_fingerprint(), self.context_shapes(request))
        return request

    def encode_conditions(self, request: VideoRequest) -> Any:
        """Encode text and images once, on the device; what comes back goes to the other hooks as `conditions`."""
        raise NotImplementedError

    def plan(self, request: VideoRequest) -> Sequence[Window]:
        """Cut the frames into windows, lazily."""
        raise NotImplementedError

    def predictor(
        self,
        window: Window,
        state: StreamState,
        conditions: Any,
        *,
        generator: Generator,
        extras: dict[str, list[Tensor]],
    ) -> Predict:
        """Give `predict(sample, timestep) -> prediction` for one window; sample (B, C, F, h, w).

        Tensors (B, F, ...) that it appends to lists in `extras`, one per evaluation, go out with the chunk, stacked.
        """
        raise NotImplementedError

    def given(self, window: Window, conditions: Any, *, generator: Generator) -> WindowFrames | None:
        """Give the new frames of a window that needs no denoising, such as a user's first frame, else None."""
        return None

    def first_context(self, conditions: Any) -> dict[str, Tensor]:
        """Give the context of the first window."""
        return {}

    def next_context(
        self, window: Window, state: StreamState, conditions: Any, frames: WindowFrames
    ) -> dict[str, Tensor]:
        """Give the tensors that the next window needs, of constant size, from the finished window's new frames."""
        raise NotImplementedError

    def context_shapes(self, request: VideoRequest) -> dict[str, tuple[int, ...]] | None:
        """Shapes of the tensors that `next_context` gives, to check saved states by; None leaves them unchecked."""
        return None

    # --- the loop ----------------------------------------------------------------------------------------------------

    def generate(self, request: VideoRequest, *, keys: tuple[int, ...] | None = None) -> Iterator[VideoChunk]:
        """Check a request and start its stream; the keys of its noise are drawn here, unless they are known."""
        with self.processes.session():
            request = self.check_inputs(request)
            if request.resume is not None:
                check_place(request.resume, self.plan(request))
            if keys is None:
                resume, generator = request.resume, request.generator
                keys = self.processes.from_main(lambda: draw_keys(generator) if resume is None else resume.keys)
        self._interrupt, self._device = False, self._execution_device
        return self.processes.in_session(self._windows(request, keys))

    def generate_to(self, run_dir: str | os.PathLike[str], *args: Any, **options: Any) -> Any:
        """Make a video in a run folder, which holds the video, its manifest and all that is needed to go on.

        Args:
            run_dir: A folder that does not exist yet, or is empty.
            args: Arguments of the call, such as the prompt.
            options: Further ones, and those of `longvid.runs.RunOptions` (`fps`, `keep_states`, ...).

        Returns:
            The finished `Run`; `Run(run_dir).resume(pipe)` goes on with one that was stopped.

        Raises:
            ValueError: for what cannot be made or kept in a folder, before any work.
        """
        return longvid.runs.generate_to(self, run_dir, *args, **options)

    def collect(self, request: VideoRequest) -> LongVideoPipelineOutput | tuple:
        """Make all frames of a request and package them."""
        if request.num_frames == math.inf:
            raise ValueError("num_frames=math.inf has no last frame to collect; use stream")
        on_host = request.output_type in ("np", "pil")
        frames, masks = [], []
        for chunk in self.generate(request):
            frames.append(chunk.frames.cpu() if on_host else chunk.frames)
            masks.append(chunk.extras.get("masks"))
        if not frames:
            raise ValueError("nothing is left to make: the saved state lies at the end of the video")
        output = LongVideoPipelineOutput(package(torch.cat(frames, dim=2), request.output_type), _joined(masks))
        return output if request.return_dict else output.to_tuple()

    @torch.no_grad()
    def _windows(self, request: VideoRequest, keys: tuple[int, ...]) -> Iterator[VideoChunk]:
        try:
            conditions = self.encode_conditions(request)
            state = request.resume or StreamState(0, self.first_context(conditions), keys, self.known_fingerprint())
            windows = self.plan(request)
            with self._frame_bar(request, windows, state) as bar:
                for window in windows[state.next_window :]:
                    for chunk in self._make_window(window, state, conditions, request):
                        bar.update(chunk.num_frames)
                        if request.callback_on_chunk_end is not None:
                            request.callback_on_chunk_end(self, window.index, chunk)
                        yield chunk
                        state = chunk.state
                    if self.interrupt:
                        return
        finally:  # also when the consumer stops early
            self.maybe_free_model_hooks()

    def _make_window(
        self, window: Window, state: StreamState, conditions: Any, request: VideoRequest
    ) -> Iterator[VideoChunk]:
        """Make one window: noise, denoise, decode its new frames, part by part."""
        generator = window_generator(state.keys, window.index)
        self._guidance_scale = request.guidance_scale
        self.scheduler.set_timesteps(request.num_inference_steps)  # on the host: reading them waits for no device
        extras: dict[str, list[Tensor]] = {}
        checkpoint = NoCheckpoint()
        frames = self.given(window, conditions, generator=generator)
        if frames is None:
            noise = self.prepare_noise(window, request, generator, state.keys)
            predict = self.predictor(window, state, conditions, generator=generator, extras=extras)
            checkpoint = self.place(request).checkpoint(noise, state.keys)
            latents = self.denoise(self._replayed(predict), noise, request, generator, checkpoint)
            frames = self.place(request).frames(latents[:, :, window.keep])
        before = state
        if not self.interrupt:  # an interrupted window is made again when the stream goes on from its state
            context = self.next_context(window, state, conditions, frames)
            state = StreamState(window.index + 1, context, state.keys, state.fingerprint, window.new.stop)
        stacked = {name: torch.stack(values, dim=1) for name, values in extras.items() if values}
        start, count = window.new.start, window.new.stop - window.new.start
        done = 0
        for part in frames.parts():
            made = _handed_out(part, request.output_type)
            of_part = slice(done, done + made.shape[2])
            done, ends = of_part.stop, of_part.stop == count
            its = {name: value[:, :, of_part] for name, value in stacked.items()}
            yield VideoChunk(made, start + of_part.start, state if ends else before, its, ends)
        if not self.interrupt:
            checkpoint.remove()

    def prepare_noise(
        self, window: Window, request: VideoRequest, generator: Generator, keys: tuple[int, ...]
    ) -> Tensor:
        """Draw a window's starting noise, N(0, noise_scale^2), or take it from the given latents: (B, C, F, h, w), float32.

        Frames of the window that lie outside of the video have drawn noise in any case. `keys` are those that the
        generators of all windows come from.
        """
        height, width = (size // self.vae_scale_factor for size in request.size)
        shape = (request.batch_size, self.latent_channels, window.stop - window.start, height, width)
        given = request.latents
        known = slice(0, 0) if given is None else slice(max(0, window.start), min(window.stop, given.shape[2]))
        place = self.place(request)
        if given is not None and known == window.frames:
            return place.put(given[:, :, known])
        noise = place.normal(shape, generator).mul_(cast(float, request.noise_scale))
        if given is not None:
            noise[:, :, known.start - window.start : known.stop - window.start] = given[:, :, known].to(noise)
        return noise

    def denoise(
        self,
        predict: Predict,
        noise: Tensor,
        request: VideoRequest,
        generator: Generator,
        checkpoint: NoCheckpoint,
    ) -> Tensor:
        """Run the scheduler over one window, whatever scheduler it is, behind the steps that are kept already.

        The scheduler's timesteps are set.
        """
        scheduler = self.scheduler
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        options, steps = self._step_options(request, generator), self.place(request).steps(noise.shape[2])
        latents = steps.begin(noise)
        self._num_timesteps, draws = len(scheduler.timesteps), {"window": generator}
        done = checkpoint.restore(latents, steps, draws)
        for step, timestep in enumerate(scheduler.timesteps[done:], start=done):
            if self.interrupt:
                break
            self._timestep = timestep
            prediction = predict(steps.scaled(latents, timestep), timestep)
            latents = steps.step(prediction, timestep, latents, **options)
            if request.callback_on_step_end is not None:
                latents = self._call_back(request, step, timestep, latents=latents, prediction=prediction)
            del prediction  # of the whole window: gone before the next one is made
            checkpoint.save(step + 1, latents, steps, draws)
        return latents

    def place(self, request: VideoRequest) -> OnDevice:
        """Give where the latents of a window lie."""
        return OnDevice(self)

    # --- small parts -------------------------------------------------------------------------------------------------

    def _frame_bar(self, request: VideoRequest, windows: Sequence[Window], state: StreamState) -> Any:
        done = windows[state.next_window - 1].new.stop if state.next_window else 0
        bar = self.progress_bar(total=(request.num_frames or 0) - done)  # type: ignore[call-arg] (a decorated method)
        bar.unit = "frame"
        return bar


def _joined(masks: Sequence[Tensor | None]) -> Tensor | None:
    """Masks (B, N, F, h, w) of chunks, one behind the other; zero where a network was not asked, at all or to the end."""
    known = [mask for mask in masks if mask is not None]
    if not known:
        return None
    batch, _, _, *size = known[0].shape
    evaluations = max(mask.shape[1] for mask in known)
    blank = known[0].new_zeros(batch, evaluations, known[0].shape[2], *size)
    filled = [blank if mask is None else torch.cat([mask, blank[:, mask.shape[1] :]], dim=1) for mask in masks]
    return torch.cat(filled, dim=2)


def _handed_out(frames: WindowFrames, output_type: str) -> Tensor:
    return frames.latents if output_type == "latent" else frames.shown
