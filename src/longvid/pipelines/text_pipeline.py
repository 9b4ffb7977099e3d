"""The part of a pipeline that knows its components: text, sizes, what callbacks may read."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from longvid.pipelines.distribution import Distribution, distributed
from longvid.pipelines.fingerprint import hash_settings, stamp_of
from longvid.pipelines.loading import LoadablePipeline
from longvid.pipelines.optimization import Optimization, attention_by, optimized, replayed
from longvid.pipelines.prompts import cut_off, encode_text
from longvid.pipelines.request import VideoRequest
from longvid.pipelines.vocabulary import unknown_words
from longvid.samplers.guidance_schedule import GuidanceScale, can_guide
from longvid.samplers.processes import ALONE, Processes


class TextPipeline(LoadablePipeline):
    """A pipeline with a `vae`, a `text_encoder`, a `tokenizer`, a `scheduler` and a `unet`."""

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _guidance_scale: GuidanceScale = 1.0
    _timestep: Tensor | float = 0.0  # of the step at work, for guidance that depends on it
    _num_timesteps: int = 0
    _interrupt: bool = False
    _device: torch.device | None = None  # of the current stream; diffusers' own property takes long to find it
    _fingerprint: tuple[Any, dict[str, str]] | None = None
    optimization: Optimization | None = None
    """What `optimize` did last."""
    attention_backend: str | None = None
    """What `set_attention_backend` chose; None is torch's own choice."""
    processes: Processes = ALONE
    """Who evaluates the networks; see `distribute`."""
    spread_work: ClassVar[tuple[str, ...]] = ("branches of the guidance",)

    def optimize(
        self, level: str = "exact", *, backend: str = "inductor", fullgraph: bool = False, channels_last: bool = False
    ) -> Optimization:
        """Make the pipeline faster; call it when the pipeline is on its device and complete (LoRA, processors).

        Args:
            level: "exact": what leaves every bit as it is. "fast": also computes convolutions over time in their 2-D form
                and compiles the networks that run at every step (`torch.compile`), whose results differ by rounding;
                the first steps of every new size, batch or number of frames wait for the compiler, from seconds to
                minutes. "max": also replays them as CUDA graphs, whose
                buffers stay allocated. A later call with another level takes the compiled networks back.
            backend: Backend of `torch.compile`.
            fullgraph: Whether a network that cannot be compiled as a whole is an error.
            channels_last: Whether convolutions, those of the VAE too, keep their weights with the channels last, which
                some devices compute faster. Results differ by rounding, so level "exact" refuses it.

        Returns:
            What was done, and what was left out on this machine and why, such as compiling without a compiler.

        Raises:
            ValueError: for a level that does not exist, or `channels_last` at level "exact".
        """
        options = {"backend": backend, "fullgraph": fullgraph, "channels_last": channels_last}
        self.optimization = optimized(self, level, **options)
        return self.optimization

    def set_attention_backend(self, backend: str | None) -> int:
        """Choose who computes the attention of the networks that run at every step.

        Args:
            backend: A backend of diffusers: "native" is torch's own choice, "_native_cudnn", "_native_flash" and
                "_native_efficient" are kernels of torch, "xformers", "flash", "sage" and others need their package.
                Kernels differ by rounding, and each takes only some dtypes and devices. None: as before any call.

        Returns:
            How many layers it reaches. Layers with a processor of their own, such as an IP-Adapter's, keep it.

        Raises:
            ValueError: for a backend that does not exist, whose package is missing, or that reaches no layer.
        """
        count = attention_by(self, backend)
        self.attention_backend = backend
        return count

    def distribute(self, processes: Processes | None = None) -> Distribution:
        """Make videos together with the other processes that `accelerate launch` or torchrun started.

        All processes make the same calls, with equal arguments; all get the same video, bit for bit. Where the branches
        of the guidance are spread, it is that of one process with `batched_guidance=False`. Without a generator, the
        main process draws the seed for all. What fails in one process fails in all, with `ProcessFailed` in the others.

        Args:
            processes: Another group, such as that of another pipeline; None takes the processes that were launched
                together, and moves the pipeline to the device of this one, unless it is offloaded.

        Returns:
            What is spread and what is not; nothing for one process, which works as without this call.

        Raises:
            ValueError: if the pipeline is on another device than its process.
        """
        done = distributed(self, processes)
        self.processes = done.processes
        return done

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_videos_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Encode prompts and negative prompts, each repeated for its videos.

        Args:
            prompt: One prompt or a list; None if `prompt_embeds` are given.
            device: Where the embeddings go; the pipeline's device by default.
            num_videos_per_prompt: Copies of each prompt, following each other.
            do_classifier_free_guidance: Whether negative embeddings are wanted.
            negative_prompt: One for all, or one per prompt; empty by default.
            prompt_embeds: Embeddings to use instead of `prompt`.
            negative_prompt_embeds: Embeddings to use instead of `negative_prompt`.

        Shapes:
            B prompts -> (B * num_videos_per_prompt, N, D) each; the negative ones are None without guidance.

        Raises:
            ValueError: if the numbers of prompts and negative prompts differ.
        """
        device = device or self._execution_device
        if prompt_embeds is None:
            texts = self._converted([prompt] if isinstance(prompt, str) else list(prompt or []))
            self._warn_of_cut_text(texts)
            prompt_embeds = encode_text(texts, self.tokenizer, self.text_encoder, device)
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            count = prompt_embeds.shape[0]
            if negative_prompt is None or isinstance(negative_prompt, str):
                negative = [negative_prompt or ""]
            else:
                negative = list(negative_prompt)
            if len(negative) not in (1, count):
                raise ValueError(
                    f"negative_prompt must be one, or one for each of {count} prompts; got {len(negative)}"
                )
            negative = self._converted(negative)
            self._warn_of_cut_text(negative)
            negative_prompt_embeds = encode_text(negative, self.tokenizer, self.text_encoder, device)
            negative_prompt_embeds = negative_prompt_embeds.expand(count, -1, -1)
        prompt_embeds = prompt_embeds.to(device).repeat_interleave(num_videos_per_prompt, dim=0)
        if negative_prompt_embeds is not None:
            negative_prompt_embeds = negative_prompt_embeds.to(device).repeat_interleave(num_videos_per_prompt, dim=0)
        return prompt_embeds, negative_prompt_embeds

    def encode_segments(self, request: VideoRequest) -> tuple[Tensor, Tensor | None]:
        """Encode all prompts of a request for the networks: (S, B, N, D) each, S segments, B videos.

        The negative ones are None if they are neither given nor can be made. Words that a model with a closed vocabulary
        never learned are warned of.

        Raises:
            ValueError: if guidance needs them.
        """
        can_negate = self.text_encoder is not None or request.negative_prompt_embeds is not None
        if not can_negate and can_guide(request.guidance_scale):
            raise ValueError("guidance_scale above 1 needs negative_prompt_embeds where there is no text encoder")
        self._warn_of_unknown_words(request.prompts.flat_texts(), request.negative_prompt)
        embeds, negative = self.encode_prompt(
            request.prompts.flat_texts(),
            self._device,
            request.num_videos_per_prompt,
            can_negate,
            request.negative_prompt,
            request.prompt_embeds,
            request.negative_prompt_embeds,
        )
        sizes = {"s": request.prompts.num_segments, "r": request.num_videos_per_prompt}

        def by_segment(rows: Tensor) -> Tensor:
            return rearrange(rows.to(self.unet.dtype), "(v s r) n d -> s (v r) n d", **sizes)

        return by_segment(embeds), None if negative is None else by_segment(negative)

    def _replayed(self, predict: Any) -> Any:
        """The prediction, safe from CUDA graphs where they are in use."""
        return replayed(predict) if self.optimization and self.optimization.uses_cuda_graphs else predict

    def _converted(self, texts: list[str]) -> list[str]:
        """Write out the names of textual inversions that have several vectors, where a pipeline can load them."""
        convert = getattr(self, "maybe_convert_prompt", None)
        return texts if convert is None or self.tokenizer is None else convert(texts, self.tokenizer)

    def _warn_of_cut_text(self, texts: Sequence[str]) -> None:
        if lost := cut_off(texts, self.tokenizer):
            length = self.tokenizer.model_max_length
            warnings.warn(
                f"this model reads {length} tokens of a prompt; it does not see: {'; '.join(lost)}", stacklevel=2
            )

    def _warn_of_unknown_words(
        self, prompts: Sequence[str] | None, negative_prompt: str | Sequence[str] | None
    ) -> None:
        negative = negative_prompt or []
        texts = [*(prompts or []), *([negative] if isinstance(negative, str) else negative)]
        if words := unknown_words(self, texts):
            warnings.warn(f"this model never learned these words: {', '.join(words)}", stacklevel=2)

    def _step_options(self, request: Any, generator: torch.Generator | list[torch.Generator]) -> dict[str, Any]:
        known = inspect.signature(self.scheduler.step).parameters
        options = {"eta": request.eta, "generator": generator}
        return {name: value for name, value in options.items() if name in known and value is not None}

    def _call_back(self, request: Any, step: int, timestep: Tensor, **tensors: Tensor) -> Tensor:
        wanted = {name: tensors[name] for name in request.callback_on_step_end_tensor_inputs}
        changed = request.callback_on_step_end(self, step, timestep, wanted) or {}
        return changed.get("latents", tensors["latents"])

    @property
    def guidance_scale(self) -> float:
        """The text guidance of the current step; a schedule is read at its timestep."""
        scale = self._guidance_scale
        return float(scale(float(self._timestep))) if callable(scale) else scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the text guidance has an effect."""
        return self.guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Calls of the scheduler for one window."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether the stream ends with the current frame as it is."""
        return self._interrupt

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.vae.config.latent_channels

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return self.vae_scale_factor

    def _default_size(self) -> dict[str, int]:
        size = self.unet.config.sample_size or 64
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return {"height": height * self.vae_scale_factor, "width": width * self.vae_scale_factor}

    def known_fingerprint(self) -> dict[str, str]:
        """The fingerprint, computed again only where it changed: a component or constant, weights, dtypes, adapters.

        Every call reads all weights once, where they lie; `fingerprint.stamp_of` says what that costs. Empty where
        weights cannot be read, as when they are on the meta device.
        """
        try:
            stamp = (
                hash_settings(type(self).__name__, self.parameters),
                *(stamp_of(component) for _, component in sorted(self.components.items())),
            )
            if self._fingerprint is None or self._fingerprint[0] != stamp:
                self._fingerprint = (stamp, self.fingerprint())
        except ValueError:
            return {}
        return self._fingerprint[1]
