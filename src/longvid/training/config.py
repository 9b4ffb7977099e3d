"""The settings of a training run: one schema per recipe, for YAML files and `key=value` words (OmegaConf)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from longvid.samplers.continuing import check_context_noise
from longvid.sprites import MOTIONS
from longvid.training.art_v import ARTVRecipe
from longvid.training.clip import CLIP_FRAMES, CLIPRecipe
from longvid.training.data import DataOptions
from longvid.training.harivo import HARIVORecipe
from longvid.training.harivo_alignment import PLACE_WORDS, PLACES, TARGETS
from longvid.training.unet import UNetRecipe
from longvid.training.vae import VAERecipe
from longvid.training.ways import check_ways

SCHEDULERS = ("base", "dpmpp_2s_ancestral")
HARIVO_SCHEDULERS = ("base", "ddim")
CALL_DEFAULTS: dict[str, Any] = {
    "num_inference_steps": 8,
    "guidance_scale": 1.7,  # from 3 on, colours drift and sprites vanish
    "reference_guidance_scale": 0.0,
    "anchor_guidance_scale": 0.0,
    "noise_level": 30,
    "num_frames": 64,
}
"""What the tiny model recommends, chosen on 24 prompts of another seed than that of the published figures."""
HARIVO_CALL_DEFAULTS: dict[str, Any] = {
    "num_inference_steps": 12,
    "guidance_scale": 3.0,
    "num_frames": 24,
    "mg_scale": 0.0,
    "mg_max_ratio": 1.0,
    "strategy": "held",
    "noise_scale": 0.3,
}


@dataclass
class BaseSettings:
    """What `longvid train base` takes: the recipes of its three stages, and where things come from and go.

    Attributes:
        base: A model of this recipe whose UNet is trained further, as a folder or a bundled name: its VAE and CLIP stay as
            they are. null trains all three from nothing.
        unet_from: An ART-V model grown from such a base, whose UNet is trained further in place of the base's own: what ART-V
            puts around an image UNet stays behind.
        output: The folder of the model.
        checkpoint_every: Steps between two checkpoints.
        data: Your own videos; without them, the drawn world.
    """

    base: str | None = None
    unet_from: str | None = None
    output: str | None = None
    checkpoint_every: int = 500
    data: DataOptions = field(default_factory=DataOptions)
    vae: VAERecipe = field(default_factory=VAERecipe)
    clip: CLIPRecipe = field(default_factory=CLIPRecipe)
    unet: UNetRecipe = field(default_factory=UNetRecipe)


@dataclass
class ARTVSettings(ARTVRecipe):
    """What `longvid train art-v` takes: the recipe, the model it starts from, and where things come from and go.

    Attributes:
        base: A text-to-image model of the Stable Diffusion kind to grow ART-V from, or an ART-V model to train further:
            a bundled name, a folder or a hub id.
        output: The folder of the model.
        checkpoint_every: Steps between two checkpoints.
        scheduler: What the model is saved with: "base", the scheduler of the image model, or the paper's
            "dpmpp_2s_ancestral".
        call_defaults: Call arguments that the model recommends, such as `num_inference_steps`.
        data: Your own videos; without them, the drawn world.
    """

    base: str = "longvid/base-tiny"
    output: str | None = None
    checkpoint_every: int = 500
    scheduler: str = "base"
    call_defaults: dict[str, Any] = field(default_factory=lambda: dict(CALL_DEFAULTS))
    data: DataOptions = field(default_factory=DataOptions)


@dataclass
class HARIVOSettings(HARIVORecipe):
    """What `longvid train harivo` takes: the recipe, the model it starts from, and where things come from and go.

    Attributes:
        base: A text-to-image model of the Stable Diffusion kind, which stays as it is: a bundled name, a folder or a hub
            id.
        output: The folder of the model.
        checkpoint_every: Steps between two checkpoints.
        scheduler: What the model is saved with: "base", the scheduler of the image model, or the paper's "ddim".
        call_defaults: Call arguments that the model recommends, such as `num_inference_steps`.
        data: Your own videos; without them, the drawn world.
    """

    base: str = "longvid/base-tiny"
    output: str | None = None
    checkpoint_every: int = 500
    scheduler: str = "base"
    call_defaults: dict[str, Any] = field(default_factory=lambda: dict(HARIVO_CALL_DEFAULTS))
    data: DataOptions = field(default_factory=DataOptions)


def check_base(settings: BaseSettings) -> None:
    """Find settings that cannot work together before any work is done.

    Raises:
        ValueError: with the first one.
    """
    check_data(settings.data, 2 ** (len(settings.vae.channels) - 1), max(CLIP_FRAMES) + 1)
    for name, recipe in (("vae", settings.vae), ("clip", settings.clip), ("unet", settings.unet)):
        check_steps(recipe.num_steps, f"{name}.num_steps")
    if settings.unet_from is not None and settings.base is None:
        raise ValueError(
            f"unet_from goes with base, which VAE and CLIP are taken from; got {settings.unet_from!r} alone"
        )
    if settings.data.path is None and settings.clip.tokenizer is not None:
        raise ValueError(
            "clip.tokenizer goes with your own data: the drawn world's captions have a tokenizer of their own"
        )


def check_art_v(settings: ARTVSettings) -> None:
    """Find settings that cannot work together before any work is done.

    Raises:
        ValueError: with the first one.
    """
    check_data(settings.data, 1, 2)
    check_steps(settings.num_steps, "num_steps")
    if settings.scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}; got {settings.scheduler!r}")
    unknown = sorted(set(settings.motion_weights) - set(MOTIONS))
    if unknown or any(weight < 0 for weight in settings.motion_weights.values()):
        raise ValueError(
            f"motion_weights are numbers of at least 0 for {', '.join(MOTIONS)}; got {settings.motion_weights}"
        )
    for name in ("drop_references", "drop_anchor", "drop_text", "first_frames", "second_frames"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name} is a share of the samples, in [0, 1]; got {getattr(settings, name)}")
    check_timestep_power(settings.timestep_power, "timestep_power")


def check_harivo(settings: HARIVOSettings) -> None:
    """Find settings that cannot work together before any work is done.

    Raises:
        ValueError: with the first one.
    """
    check_data(settings.data, 1, 2)
    check_steps(settings.num_steps, "num_steps")
    if settings.scheduler not in HARIVO_SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(HARIVO_SCHEDULERS)}; got {settings.scheduler!r}")
    reach = settings.networks.motion_max_frames
    if not 2 <= settings.num_frames <= reach:
        raise ValueError(
            f"num_frames must be at least 2 and at most networks.motion_max_frames={reach}, where the positions of the"
            f" temporal layers end; got {settings.num_frames}"
        )
    if not 0 <= settings.drop_text <= 1:
        raise ValueError(f"drop_text is a share of the samples, in [0, 1]; got {settings.drop_text}")
    check_timestep_power(settings.timestep_power, "timestep_power")
    check_ways(settings.ways)
    if not 0 <= settings.continuing <= 1:
        raise ValueError(f"continuing is a share of the clips, in [0, 1]; got {settings.continuing}")
    check_context_noise(settings.context_noise)
    for name in ("trs", "dc", "reg"):
        if getattr(settings, name).weight < 0:
            raise ValueError(f"{name}.weight must be at least 0; got {getattr(settings, name).weight}")
    if settings.reg.num_frames is not None and settings.reg.num_frames < 1:
        raise ValueError(f"reg.num_frames must be at least 1, or null for all; got {settings.reg.num_frames}")
    _check_alignment(settings)


def _check_alignment(settings: HARIVOSettings) -> None:
    alignment = settings.alignment
    if alignment.num_steps < 0:
        raise ValueError(f"alignment.num_steps must be at least 0; got {alignment.num_steps}")
    if alignment.target not in TARGETS:
        raise ValueError(f"alignment.target must be one of {', '.join(TARGETS)}; got {alignment.target!r}")
    if alignment.places not in PLACES:
        raise ValueError(f"alignment.places must be one of {', '.join(PLACES)}; got {alignment.places!r}")
    distillation = settings.distillation
    if distillation.num_steps < 0:
        raise ValueError(f"distillation.num_steps must be at least 0; got {distillation.num_steps}")
    if distillation.frames_per_clip < 1:
        raise ValueError(f"distillation.frames_per_clip must be at least 1; got {distillation.frames_per_clip}")
    for name in ("drop_text", "pure_noise"):
        if not 0 <= getattr(distillation, name) <= 1:
            raise ValueError(
                f"distillation.{name} is a share of the samples, in [0, 1]; got {getattr(distillation, name)}"
            )
    if distillation.smoothing < 0:
        raise ValueError(f"distillation.smoothing must be at least 0 frames; got {distillation.smoothing}")
    check_timestep_power(distillation.timestep_power, "distillation.timestep_power")
    for phase, options in (("alignment", alignment), ("distillation", distillation)):
        if options.words not in PLACE_WORDS:
            raise ValueError(f"{phase}.words must be one of {', '.join(PLACE_WORDS)}; got {options.words!r}")
        if options.num_steps and settings.data.path is not None:
            raise ValueError(
                f"the {phase} needs the drawn world, which can say where its sprites are; with your own videos set"
                f" {phase}.num_steps=0"
            )
        if options.num_steps and not settings.networks.tokens_per_frame:
            raise ValueError(
                f"the {phase} teaches frame tokens, and networks.tokens_per_frame is 0: set {phase}.num_steps=0"
            )


def check_data(data: DataOptions, multiple: int, min_frames: int) -> None:
    """Refuse a size or rate that the drawn world has not, sides that are no multiples, and clips that are too short."""
    from longvid.sprites import FPS, SIZE

    size = (data.height, data.width)
    if data.path is None and (*size, data.fps) != (SIZE, SIZE, FPS):
        raise ValueError(
            f"the drawn world is {SIZE} x {SIZE} at {FPS} frames per second; training at {size[0]} x {size[1]} and"
            f" {data.fps:g} needs your own videos: set data.path (--data FOLDER or CSV)"
        )
    if min(size) < multiple or any(side % multiple for side in size):
        raise ValueError(f"data.height and data.width must be multiples of {multiple}; got {size[0]} x {size[1]}")
    if data.fps <= 0:
        raise ValueError(f"data.fps must be above 0; got {data.fps}")
    if data.min_frames < min_frames:
        raise ValueError(f"data.min_frames must be at least {min_frames}; got {data.min_frames}")


def check_timestep_power(power: float, name: str) -> None:
    """Refuse a power for which strong noise would come up less often than weak."""
    if power < 0:
        raise ValueError(f"{name} must be at least 0; got {power}")


def check_steps(num_steps: int, name: str) -> None:
    """Refuse a training of no step."""
    if num_steps < 1:
        raise ValueError(f"{name} must be at least 1; got {num_steps}")
