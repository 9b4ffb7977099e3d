"""DPM-Solver++(2S) with ancestral noise, as a diffusers scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import betas_for_alpha_bar, rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput

from .noise_augmentation import draw_noise
from .prediction import PREDICTION_TYPES, math_dtype

SPACINGS = ("trailing", "leading", "linspace")
BETA_SCHEDULES = ("scaled_linear", "linear", "squaredcos_cap_v2")


@dataclass
class DPMPP2SAncestralSchedulerOutput(BaseOutput):
    """What one `step` gives: the next sample, and the clean estimate of this evaluation."""

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


@dataclass(frozen=True)
class _Evaluation:
    """One call of the network: where it looks, and the step from `start` to `down` (+ noise `up`) it belongs to."""

    sigma: float  # noise level of the sample that comes in
    network_sigma: float  # the level the network is told: `sigma`, or its nearest table entry
    timestep: float
    start: float
    down: float
    up: float
    is_last_of_step: bool


class DPMPP2SAncestralScheduler(SchedulerMixin, ConfigMixin):
    r"""DPM-Solver++(2S) ancestral: two evaluations per step, then fresh noise ("DPM++ 2S a").

    A step from :math:`a = \sigma_i` to :math:`b = \sigma_{i+1}`, with D the clean estimate and n standard normal:

    .. math::
        up &= \min(b,\ \eta \sqrt{b^2 (a^2 - b^2) / a^2}), \quad down = \sqrt{b^2 - up^2}, \quad
        mid = \sqrt{a \cdot down}, \quad h = \ln(a / down) \\
        x_2 &= (mid / a)\, x - (e^{-h/2} - 1)\, D(x, a) \\
        x &\leftarrow (down / a)\, x - (e^{-h} - 1)\, D(x_2, mid) + s_{noise} \cdot up \cdot n

    Where down = 0 (the last step, and with eta > 1 others too) one evaluation is enough: :math:`x \leftarrow D(x, a)`,
    plus the noise. `timesteps` lists the evaluations, 2 n - 1 of them for n steps if eta <= 1. The sample between calls
    is :math:`x_0 + \sigma \epsilon`; start from standard normal noise times `init_noise_sigma`. Evaluations are
    counted, not looked up; only the first is found by its timestep, unless `set_begin_index` names it. A run that
    begins between two nodes of the grid takes one first-order step to the next node.

    Args:
        num_train_timesteps: Number T of training timesteps.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: "scaled_linear" (Stable Diffusion's), "linear" or "squaredcos_cap_v2".
        trained_betas: Betas to use instead.
        prediction_type: What the network predicts: "epsilon", "v_prediction" or "sample".
        timestep_spacing: "trailing", "leading" or "linspace", as in Table 2 of arXiv:2305.08891.
        truncate_timesteps: With trailing spacing, take `int(linspace(T - 1, 0, n, endpoint=False))` as Stability's
            generative-models do. It differs by at most one from the rounding of diffusers, which False selects.
        steps_offset: Added to timesteps of leading spacing.
        eta: Share of ancestral noise; 0 is the deterministic DPM-Solver++(2S).
        s_noise: Factor on that noise.
        sigma_snap: Evaluate the network at the nearest of the T training noise levels, as generative-models do. False
            gives it the true level and a fractional timestep, as k-diffusion does.
        rescale_betas_zero_snr: Rescale the betas so that the last timestep has no signal (arXiv:2305.08891).

    Raises:
        ValueError: for an unknown name, or a negative eta or s_noise.
    Source: Lu et al. (arXiv:2211.01095), with the ancestral step of k-diffusion's `sample_dpmpp_2s_ancestral`.
    """

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    order = 2

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        trained_betas: np.ndarray | list[float] | None = None,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "trailing",
        truncate_timesteps: bool = True,
        steps_offset: int = 0,
        eta: float = 1.0,
        s_noise: float = 1.0,
        sigma_snap: bool = False,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type must be one of {PREDICTION_TYPES}; got {prediction_type!r}")
        if timestep_spacing not in SPACINGS:
            raise ValueError(f"timestep_spacing must be one of {SPACINGS}; got {timestep_spacing!r}")
        if eta < 0 or s_noise < 0:
            raise ValueError(f"eta and s_noise must be at least 0; got eta={eta}, s_noise={s_noise}")
        if trained_betas is not None:
            betas = torch.as_tensor(np.asarray(trained_betas), dtype=torch.float64)
        else:
            betas = _make_betas(beta_schedule, beta_start, beta_end, num_train_timesteps)
        if rescale_betas_zero_snr:
            betas = rescale_zero_terminal_snr(betas)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        if rescale_betas_zero_snr:
            alphas_cumprod[-1] = 2**-24  # sigma 4096 in place of infinity, as in diffusers' Euler
        self.betas = betas.float()
        self.alphas = 1.0 - self.betas
        self.alphas_cumprod = alphas_cumprod.float()
        self._table = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().numpy()  # sigma of every training timestep
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(len(betas) - 1, -1, -1, dtype=torch.float32)
        self.sigmas = torch.from_numpy(np.append(self._table[::-1], 0.0))
        self._plan: list[_Evaluation] = []
        self._start_sample: torch.Tensor | None = None
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the sample before the first step, data included: sqrt(sigma_0^2 + 1)."""
        return math.sqrt(float(self.sigmas[0]) ** 2 + 1)

    @property
    def step_index(self) -> int | None:
        """Index into `timesteps` of the evaluation that comes next; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Index into `timesteps` at which the run begins; None to find it by the first timestep."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin the run at `timesteps[begin_index]`, as image to image does after skipping the first steps."""
        self._begin_index = begin_index

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Lay out the evaluations of `num_inference_steps` steps in `timesteps` and `sigmas`, and start anew.

        Args:
            num_inference_steps: Number n of steps, in [1, T]; there are 2 n - 1 evaluations if eta <= 1.
            device: Where `timesteps` goes. `sigmas` stays on the CPU: one float64 level per evaluation and a final 0.

        Raises:
            ValueError: if `num_inference_steps` is out of range.
        """
        if not 1 <= num_inference_steps <= len(self._table):
            raise ValueError(f"num_inference_steps must be in [1, {len(self._table)}]; got {num_inference_steps}")
        nodes = self._space(num_inference_steps)
        sigmas = [*self._sigma_of(nodes).tolist(), 0.0]
        self._plan = []
        for node, start, end in zip(nodes.tolist(), sigmas, sigmas[1:], strict=False):
            up = min(end, self.config.eta * math.sqrt(max(end**2 * (start**2 - end**2) / start**2, 0.0)))
            down = math.sqrt(max(end**2 - up**2, 0.0))
            self._plan.append(self._evaluation(start, node, (start, down, up), down == 0))
            if down > 0:
                self._plan.append(self._evaluation(math.sqrt(start * down), None, (start, down, up), True))
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.tensor([plan.timestep for plan in self._plan], dtype=torch.float32, device=device)
        self.sigmas = torch.tensor([*(plan.network_sigma for plan in self._plan), 0.0], dtype=torch.float64)
        self._start_sample, self._step_index, self._begin_index = None, None, None

    def scale_model_input(self, sample: torch.Tensor, timestep: float | torch.Tensor) -> torch.Tensor:
        """Return the sample as the network wants it, divided by sqrt(sigma^2 + 1); call it before every `step`."""
        return sample / math.sqrt(self._current(timestep).network_sigma ** 2 + 1)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        noise: torch.Tensor | None = None,
    ) -> DPMPP2SAncestralSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Take one evaluation of the network into account and return the sample for the next.

        Args:
            model_output: The network's prediction for `scale_model_input(sample, timestep)`.
            timestep: The current entry of `timesteps`.
            sample: The sample this scheduler returned last, or the noisy start.
            generator: Source of the ancestral noise, or one source per sample.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).
            noise: The ancestral noise itself; `generator` is then left alone. Only read where a step ends.
        Shapes:
            model_output, sample and noise (B, ...) -> both results (B, ...), dtype of `sample`; maths in float32, or in
            float64 for float64 samples.

        Raises:
            ValueError: if `set_timesteps` was not called, the run is over, or the shapes or generators do not fit.
        """
        if model_output.shape != sample.shape:
            raise ValueError(f"expected a model_output of shape {tuple(sample.shape)}; got {tuple(model_output.shape)}")
        now = self._current(timestep)
        dtype = math_dtype(sample)
        x = sample.to(dtype)
        x0 = self._clean_estimate(model_output.to(dtype), x, now.network_sigma)
        if not now.is_last_of_step:
            half = 0.5 * math.log(now.start / now.down)
            self._start_sample = x
            prev_sample = math.exp(-half) * x - math.expm1(-half) * x0
        else:
            begin, level = (x, now.sigma) if self._start_sample is None else (self._start_sample, now.start)
            ratio = now.down / level  # exp(-h)
            self._start_sample = None
            prev_sample = ratio * begin + (1 - ratio) * x0
            if (spread := now.up * self.config.s_noise) > 0:
                prev_sample = prev_sample + spread * draw_noise(x, generator=generator, noise=noise)
        self._step_index = (self._step_index or 0) + 1
        prev_sample, x0 = prev_sample.to(sample.dtype), x0.to(sample.dtype)
        if not return_dict:
            return prev_sample, x0
        return DPMPP2SAncestralSchedulerOutput(prev_sample=prev_sample, pred_original_sample=x0)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return `original_samples + sigma * noise` at training timesteps or at entries of `timesteps`.

        The result is a sample for `step`; a network sees it divided by sqrt(sigma^2 + 1), which for training is what
        `longvid.samplers.add_noise` returns at once.

        Shapes:
            original_samples and noise (B, ...), timesteps () or (B,) -> (B, ...).
        """
        positions = torch.as_tensor(timesteps).detach().cpu().double().numpy()
        sigmas = torch.as_tensor(self._sigma_of(positions)).to(original_samples.device, math_dtype(original_samples))
        sigmas = sigmas.reshape(-1, *[1] * (original_samples.ndim - 1))
        return (original_samples + sigmas * noise).to(original_samples.dtype)

    def __len__(self) -> int:
        """Return the number of training timesteps."""
        return len(self._table)

    def _space(self, count: int) -> np.ndarray:
        """Return the timesteps of the nodes, noisiest first."""
        total = len(self._table)
        if self.config.timestep_spacing == "linspace":
            return np.linspace(0, total - 1, count)[::-1].copy()
        if self.config.timestep_spacing == "leading":
            return (np.arange(count) * (total // count))[::-1].astype(np.float64) + self.config.steps_offset
        if self.config.truncate_timesteps:
            return np.linspace(total - 1, 0, count, endpoint=False).astype(np.int64).astype(np.float64)
        return np.arange(total, 0, -total / count).round()[:count] - 1

    def _sigma_of(self, timesteps: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(timesteps, np.arange(len(self._table)), np.log(self._table)))

    def _evaluation(
        self, sigma: float, timestep: float | None, interval: tuple[float, float, float], is_last: bool
    ) -> _Evaluation:
        network_sigma = sigma
        if self.config.sigma_snap:
            timestep = float(np.abs(self._table - sigma).argmin())
            network_sigma = float(self._table[int(timestep)])
        elif timestep is None:
            timestep = float(np.interp(math.log(sigma), np.log(self._table), np.arange(len(self._table))))
        return _Evaluation(sigma, network_sigma, timestep, *interval, is_last)

    def _current(self, timestep: float | torch.Tensor) -> _Evaluation:
        """Return the evaluation that comes next; the first of a run is the begin index or the nearest timestep."""
        if not self._plan:
            raise ValueError("expected a call of `set_timesteps` before the first step")
        if self._step_index is None:
            nearest = int((self.timesteps.cpu() - float(timestep)).abs().argmin())
            self._step_index = nearest if self._begin_index is None else self._begin_index
        if not 0 <= self._step_index < len(self._plan):
            raise ValueError(
                f"expected a step in [0, {len(self._plan)}); got {self._step_index}: call `set_timesteps` to start anew"
            )
        return self._plan[self._step_index]

    def _clean_estimate(self, prediction: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        if self.config.prediction_type == "epsilon":
            return x - sigma * prediction
        if self.config.prediction_type == "v_prediction":
            return x / (sigma**2 + 1) - (sigma / math.sqrt(sigma**2 + 1)) * prediction
        return prediction


def _make_betas(schedule: str, start: float, end: float, count: int) -> torch.Tensor:
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if schedule == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if schedule == "squaredcos_cap_v2":
        return betas_for_alpha_bar(count).double()
    raise ValueError(f"beta_schedule must be one of {BETA_SCHEDULES}; got {schedule!r}")
