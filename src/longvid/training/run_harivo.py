"""The HARIVO run: latents, the alignment if there is one, the training, and a pipeline folder in the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

from longvid.modules import FrameTokenGenerator
from longvid.pipelines.harivo import HARIVOPipeline
from longvid.pipelines.image_model import load_image_model
from longvid.pipelines.sources import model_index
from longvid.samplers.noise_schedule import noise_schedule
from longvid.sprites import Scene
from longvid.training import captioned
from longvid.training.clip import max_tokens, tokenize
from longvid.training.config import HARIVOSettings, check_harivo
from longvid.training.harivo import HARIVOObjective, HARIVORecipe, harivo_batches
from longvid.training.harivo_alignment import AlignmentObjective, alignment_batches
from longvid.training.harivo_distillation import DistillationObjective, distillation_batches
from longvid.training.harivo_networks import HARIVONetworks, build_networks
from longvid.training.latent_sources import drawn_latents, own_latents
from longvid.training.latents import training_scenes
from longvid.training.loop import BatchSource, TrainingRecord
from longvid.training.ways import on_their_ways
from longvid.training.workspace import Workspace


def run_harivo(settings: HARIVOSettings) -> Iterator[TrainingRecord]:
    """Train temporal layers, mapping network and frame tokens around `settings.base`, and leave a pipeline folder.

    Every weight of the image model stays bit for bit as it was. A base that is a HARIVO model already is trained further,
    with the networks that it has: `networks`, `alignment` and `distillation` of the settings do not count.

    Killed at any moment and started again with the same settings, the run goes on from its last checkpoint and ends in
    the same weights.

    Raises:
        ValueError: for settings that cannot work, data that cannot be read, a base that temporal layers cannot be put
            into or with windows of another length, or a folder that holds another run.
    """
    check_harivo(settings)
    work = Workspace(settings.output, settings)
    torch.manual_seed(settings.seed)
    trained = _trained(settings)
    base = load_image_model(settings.base) if trained is None else trained
    tokenizer, betas = base.tokenizer, changed_schedule(base.scheduler, settings)
    if trained is None:
        networks = build_networks(settings.networks, base.unet, settings.num_frames, max_tokens(tokenizer))
    else:
        networks = HARIVONetworks(trained.unet, trained.mapping_network, trained.frame_tokens)
    if settings.data.path is None:
        scenes = harivo_scenes(settings)
        latents, _ = drawn_latents(work, base.vae, settings, scenes)
        batches, latent_size = harivo_batches(settings, latents, scenes, tokenizer), latents.shape[-2:]
    else:
        batches, latent_size = yield from _own_windows(work, base.vae, settings, tokenizer)
    predicts = base.scheduler.config.get("prediction_type", "epsilon")
    noise = DDPMScheduler(**betas, prediction_type=predicts, clip_sample=False)
    if trained is None and settings.data.path is None and networks.frame_tokens is not None:
        yield from _prepare_tokens(work, settings, networks.frame_tokens, base, noise, scenes, tuple(latents.shape[2:]))
    null_ids = tokenize(tokenizer, [""])[0]
    objective = HARIVOObjective(networks, noise, settings, base.text_encoder, null_ids, tuple(latent_size))  # type: ignore[arg-type]
    yield from work.train("harivo", objective, batches, settings)
    work.publish(lambda folder: assemble(base, networks, settings).save_pretrained(folder))


def changed_schedule(scheduler: Any, recipe: HARIVORecipe) -> dict[str, Any]:
    """The image model's noise schedule, with what the recipe changes of it."""
    changes = {"beta_schedule": recipe.beta_schedule, "beta_end": recipe.beta_end}
    return {**noise_schedule(scheduler), **{name: value for name, value in changes.items() if value is not None}}


def harivo_scenes(recipe: HARIVORecipe) -> list[Scene]:
    """The scenes of the drawn world that the recipe asks for."""
    scenes = training_scenes(recipe.num_scenes, recipe.seed, tuple(recipe.motions))
    return on_their_ways(scenes, recipe.ways, recipe.num_frames, recipe.continuing)


def _trained(settings: HARIVOSettings) -> HARIVOPipeline | None:
    """The base itself, if it is a HARIVO model."""
    if model_index(settings.base).get("_class_name") != HARIVOPipeline.__name__:
        return None
    pipeline = HARIVOPipeline.from_pretrained(settings.base)
    if pipeline.config.window_size != settings.num_frames:
        has = pipeline.config.window_size
        raise ValueError(f"num_frames must be {has}, the window of the base; got {settings.num_frames}")
    return pipeline


def assemble(base: Any, networks: HARIVONetworks, settings: HARIVOSettings) -> HARIVOPipeline:
    """Put the trained networks and the parts of the image model together."""
    betas = changed_schedule(base.scheduler, settings)
    if settings.scheduler == "ddim":
        predicts = base.scheduler.config.get("prediction_type", "epsilon")
        scheduler = DDIMScheduler(
            **betas, prediction_type=predicts, clip_sample=False, steps_offset=1, set_alpha_to_one=False
        )
    else:
        scheduler = type(base.scheduler).from_config(base.scheduler.config, **betas)
    continuing = "empty" if settings.distillation.num_steps else "own"
    return HARIVOPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        scheduler=scheduler,
        unet=networks.unet.eval(),
        mapping_network=networks.mapping_network,
        frame_tokens=networks.frame_tokens,
        window_size=settings.num_frames,
        overlap=settings.overlap,
        continuing_tokens=base.config.get("continuing_tokens", continuing),
        call_defaults=dict(settings.call_defaults) or None,
    )


def _prepare_tokens(
    work: Workspace,
    settings: HARIVOSettings,
    tokens: FrameTokenGenerator,
    base: Any,
    noise: DDPMScheduler,
    scenes: list[Scene],
    latent_shape: tuple[int, ...],
) -> Iterator[TrainingRecord]:
    """The alignment and the distillation of the frame tokens, as far as the settings ask for them."""
    align, distil, parts = settings.alignment, settings.distillation, (tokens, base.text_encoder, base.unet)

    def alignment() -> tuple[nn.Module, BatchSource]:
        end_id = base.tokenizer.eos_token_id
        objective = AlignmentObjective(*parts, target=align.target, end_id=end_id)
        return objective, alignment_batches(align, scenes, base.tokenizer, settings.num_frames)

    def distillation() -> tuple[nn.Module, BatchSource]:
        objective = DistillationObjective(*parts, noise, distil, latent_shape)
        return objective, distillation_batches(distil, scenes, base.tokenizer, settings.num_frames)

    for name, options, build in (("alignment", align, alignment), ("distillation", distil, distillation)):
        if not options.num_steps:
            continue
        if (folder := work.model(name)) is None:
            yield from work.train(name, *build(), options)
            work.keep(name, frame_tokens=tokens)
        else:
            tokens.load_state_dict(FrameTokenGenerator.from_pretrained(str(folder / "frame_tokens")).state_dict())
    if distil.num_steps:
        tokens.register_to_config(smoothing=distil.smoothing)


def _own_windows(
    work: Workspace, vae: Any, settings: HARIVOSettings, tokenizer: CLIPTokenizer
) -> Any:  # a generator of records that returns micro-batches and the size of a latent
    data = replace(settings.data, min_frames=max(settings.data.min_frames, settings.num_frames))
    store = yield from own_latents(work, data, vae, tokenizer)
    batches: BatchSource = captioned.captioned_windows(settings, store, tokenizer)
    first: Tensor = store.frames(0, [0])
    return batches, first.shape[-2:]
