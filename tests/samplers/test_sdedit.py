import diffusers
import pytest
import torch

from longvid import DPMPP2SAncestralScheduler
from longvid.samplers import alpha_bar, history_option, sdedit_timesteps
from tiny import BETAS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, inside diffusers

EXACT = [
    "DDIMScheduler",
    "DDPMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
    "DPMPP2SAncestralScheduler",
]
LEAVE_NOISE = [
    "PNDMScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
    "TCDScheduler",
]  # that of their last step


def scheduler(name, **options):
    if name == "LMSDiscreteScheduler":
        pytest.importorskip("scipy", reason="diffusers' LMS integrates with scipy")
    if name in ("DDIMScheduler", "DDPMScheduler", "LCMScheduler"):
        options["clip_sample"] = False
    if name == "PNDMScheduler":
        options.setdefault("skip_prk_steps", True)
    return (getattr(diffusers, name, None) or DPMPP2SAncestralScheduler)(**BETAS, **options)


@pytest.mark.parametrize("name", EXACT + LEAVE_NOISE)
@pytest.mark.parametrize(("num_steps", "noise_timestep"), [(10, 600), (8, 310), (10, 120.5)])
def test_a_perfect_network_gives_the_clean_video_back_from_any_start(name, num_steps, noise_timestep):
    """For one single possible video, the exact noise is known at every level: all noise that was added must go."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, 4, 5, 3, 3, generator=generator) for _ in range(2))
    driver = scheduler(name)
    timesteps = sdedit_timesteps(driver, num_steps, noise_timestep)
    assert len(timesteps) >= 1 and (timesteps < noise_timestep).all()
    x = driver.add_noise(x0, noise, timesteps[:1])
    for step, timestep in enumerate(timesteps):
        sample, share = driver.scale_model_input(x, timestep), alpha_bar(driver, timestep)
        epsilon = (sample - share.sqrt() * x0) / (1 - share).sqrt()
        x = driver.step(epsilon, timestep, x, **history_option(driver, step)).prev_sample
    remaining = (1 - driver.alphas_cumprod[0]).sqrt() if name in LEAVE_NOISE else 0
    assert (x - x0).abs().max() <= 5 * remaining + 1e-4
    assert (x - x0).std() <= 1.1 * remaining + 1e-4


def test_the_papers_start_is_30_of_50_steps_from_timestep_599():
    timesteps = sdedit_timesteps(scheduler("DDIMScheduler", timestep_spacing="trailing"), 50, 600)
    assert len(timesteps) == 30 and timesteps[0] == 599


def test_the_whole_schedule_lies_below_the_last_timestep():
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "PNDMScheduler"):
        driver = scheduler(name)
        assert torch.equal(sdedit_timesteps(driver, 10, 1000), driver.timesteps)


@pytest.mark.parametrize(
    ("name", "options", "arguments", "message"),
    [
        ("DDIMScheduler", {}, (50, 0), r"noise_timestep must lie in \(0, 1000\]; got 0"),
        ("DDIMScheduler", {}, (50, 1001), r"noise_timestep must lie in \(0, 1000\]; got 1001"),
        (
            "DPMSolverMultistepScheduler",
            {},
            (2, 100),
            "no step lies below noise_timestep=100 with .*the lowest is at 500",
        ),
        ("PNDMScheduler", {"skip_prk_steps": False}, (50, 600), "skip_prk_steps=True; got False"),
    ],
)
def test_a_start_that_cannot_be_is_refused(name, options, arguments, message):
    with pytest.raises(ValueError, match=message):
        sdedit_timesteps(scheduler(name, **options), *arguments)


def test_schedulers_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="got FlowMatchEulerDiscreteScheduler"):
        sdedit_timesteps(diffusers.FlowMatchEulerDiscreteScheduler(), 50, 600)
