"""How latents are denoised: functions that wrap a predictor, and schedulers. No network is known here."""

from .continuing import continued
from .dpmpp_2s_ancestral import DPMPP2SAncestralScheduler
from .guidance import guided, rescale_guidance
from .guidance_schedule import GuidanceSchedule
from .mitigating_gradient import mitigated, mitigating_gradient
from .noise_augmentation import augment
from .prediction import add_noise, alpha_bar, from_epsilon, from_x0, to_epsilon, to_x0
from .processes import LaunchedProcesses, Processes, ProcessFailed
from .randomized_blending import blended, paper_cut, released_cut, whole_cut
from .sdedit import history_option, sdedit_timesteps

__all__ = [
    "DPMPP2SAncestralScheduler",
    "GuidanceSchedule",
    "LaunchedProcesses",
    "ProcessFailed",
    "Processes",
    "add_noise",
    "alpha_bar",
    "augment",
    "blended",
    "continued",
    "from_epsilon",
    "from_x0",
    "guided",
    "history_option",
    "mitigated",
    "mitigating_gradient",
    "paper_cut",
    "released_cut",
    "rescale_guidance",
    "sdedit_timesteps",
    "to_epsilon",
    "to_x0",
    "whole_cut",
]
