"""The training runs, stage after stage: `base`, `art-v`, and those of the other methods, each leaving a pipeline folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection

from longvid import bundled
from longvid.pipelines.art_v import ARTVPipeline
from longvid.pipelines.image_model import load_image_model
from longvid.pipelines.sources import model_index
from longvid.pipelines.tokenizers import load_tokenizer
from longvid.samplers.dpmpp_2s_ancestral import DPMPP2SAncestralScheduler
from longvid.samplers.noise_schedule import noise_schedule
from longvid.training import captioned
from longvid.training.art_v import ARTVObjective, art_v_batches, network_options
from longvid.training.clip import CLIPObjective, CLIPRecipe, build_clip, build_tokenizer, clip_batches, tokenize
from longvid.training.config import ARTVSettings, BaseSettings, HARIVOSettings, check_art_v, check_base
from longvid.training.config_video import StreamingT2VSettings, VideoBaseSettings
from longvid.training.data import DataOptions, find_clips
from longvid.training.frame_store import FrameStore, pixel_store
from longvid.training.latent_sources import drawn_latents, own_latents
from longvid.training.loop import TrainingRecord
from longvid.training.run_harivo import run_harivo
from longvid.training.run_video import run_streaming_t2v, run_video_base
from longvid.training.unet import UNetObjective, UNetRecipe, build_scheduler, build_unet, unet_batches
from longvid.training.vae import VAEObjective, VAERecipe, build_vae, fold_normalisation, frame_batches
from longvid.training.workspace import Workspace


def run_base(settings: BaseSettings) -> Iterator[TrainingRecord]:
    """Train VAE, CLIP and UNet, and leave `settings.output` as a Stable Diffusion pipeline folder.

    With `settings.base`, its VAE and CLIP stay as they are and its UNet is trained further. The whole CLIP model lies
    beside the pipeline's parts, in the folder `clip`. Killed at any moment and started again with the same settings,
    the run goes on from its last checkpoint and ends in the same weights.

    Raises:
        ValueError: for settings that cannot work, data that cannot be read, or a folder that holds another run.
    """
    check_base(settings)
    work = Workspace(settings.output, settings)
    if settings.base is None:
        pixels = _pixels(work, settings.data)
        if pixels is not None:
            yield from work.fill("frames", pixels)
        yield from _train_vae(work, settings.vae, pixels)
        yield from _train_clip(work, settings.clip, pixels)
        yield from _train_unet(work, settings)
    else:
        unet = _take_over(work, settings.base)
        if settings.unet_from is not None:
            _leave_art_v(unet, settings.unet_from)
        yield from _train_unet(work, settings, unet=unet)
    work.publish(lambda folder: _assemble(work, folder, settings.unet))


def run_art_v(settings: ARTVSettings) -> Iterator[TrainingRecord]:
    """Grow `settings.base` into ART-V, train it, and leave `settings.output` as a pipeline folder of the whole model.

    A base that is an ART-V model already is trained further, with the networks that it has.

    Killed at any moment and started again with the same settings, the run goes on from its last checkpoint and ends in
    the same weights.

    Raises:
        ValueError: for settings that cannot work, data that cannot be read, a base that ART-V cannot grow from, or a
            folder that holds another run.
    """
    check_art_v(settings)
    work = Workspace(settings.output, settings)
    torch.manual_seed(settings.seed)
    pipeline = _untrained(settings) if (trained := _trained(settings)) is None else trained
    tokenizer = pipeline.tokenizer
    if settings.beta_end is not None:
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, beta_end=settings.beta_end)
    if settings.data.path is None:
        latents, scenes = drawn_latents(work, pipeline.vae, settings)
        batches = art_v_batches(settings, latents, scenes, tokenizer)
    else:
        store = yield from own_latents(work, settings.data, pipeline.vae, tokenizer)
        batches = captioned.captioned_histories(settings, store, tokenizer)
    noise = DDPMScheduler(
        **noise_schedule(pipeline.scheduler),
        prediction_type=pipeline.config.prediction_type,
        clip_sample=False,
    )
    null_ids = tokenize(tokenizer, [""])[0]
    networks = (pipeline.unet, pipeline.mask_network)
    objective = ARTVObjective(*networks, noise, settings, pipeline.text_encoder, null_ids)
    yield from work.train("art_v", objective, batches, settings)
    work.publish(pipeline.save_pretrained)


@dataclass(frozen=True)
class Run:
    """A training run: the schema of its settings, and the function that takes them and yields a record per step."""

    schema: type
    run: Callable[[Any], Iterator[TrainingRecord]]


RECIPES = {
    "base": Run(BaseSettings, run_base),
    "art-v": Run(ARTVSettings, run_art_v),
    "harivo": Run(HARIVOSettings, run_harivo),
    "video-base": Run(VideoBaseSettings, run_video_base),
    "streaming-t2v": Run(StreamingT2VSettings, run_streaming_t2v),
}


def _untrained(settings: ARTVSettings) -> ARTVPipeline:
    """ART-V grown from an image model."""
    of_unet, of_mask = network_options(settings)
    base = load_image_model(settings.base)
    pipeline = ARTVPipeline.from_base(
        base,
        unet_options=of_unet,
        mask_options=of_mask,
        static_noise=settings.static_noise,
        call_defaults=dict(settings.call_defaults) or None,
    )
    if settings.scheduler == "base":
        pipeline.scheduler = base.scheduler
    return pipeline


def _trained(settings: ARTVSettings) -> ARTVPipeline | None:
    """The base itself, if it is an ART-V model."""
    if model_index(settings.base).get("_class_name") != ARTVPipeline.__name__:
        return None
    pipeline = ARTVPipeline.from_pretrained(settings.base)
    if pipeline.config.static_noise != settings.static_noise:
        has = pipeline.config.static_noise
        raise ValueError(f"static_noise must be {has!r}, as in the base; got {settings.static_noise!r}")
    if settings.scheduler == "dpmpp_2s_ancestral":
        pipeline.scheduler = DPMPP2SAncestralScheduler(**noise_schedule(pipeline.scheduler))
    pipeline.register_to_config(call_defaults=dict(settings.call_defaults) or None)
    return pipeline


def _train_vae(work: Workspace, recipe: VAERecipe, pixels: FrameStore | None) -> Iterator[TrainingRecord]:
    if work.model("vae"):
        return
    torch.manual_seed(recipe.seed)
    vae = build_vae(recipe)
    batches = frame_batches(recipe) if pixels is None else captioned.captioned_frames(recipe, pixels)
    yield from work.train("vae", VAEObjective(vae, recipe), batches, recipe)
    vae.eval()
    if work.process.is_main_process:
        unseen = range(10**6, 10**6 + max(1, recipe.normalise_frames // recipe.batch_size))
        fold_normalisation(vae, torch.cat([batches(index)["frames"] for index in unseen]).to(vae.device))
    work.keep("vae", vae=vae)


def _train_clip(work: Workspace, recipe: CLIPRecipe, pixels: FrameStore | None) -> Iterator[TrainingRecord]:
    if work.model("clip"):
        return
    torch.manual_seed(recipe.seed)
    if pixels is None:
        tokenizer = build_tokenizer()
        batches = clip_batches(recipe, tokenizer)
    else:
        captions = [clip.caption for clip in pixels.clips]
        own = recipe.tokenizer is None
        tokenizer = captioned.tokenizer_for(captions) if own else load_tokenizer(str(recipe.tokenizer))
        captioned.check_captions(tokenizer, captions)
        batches = captioned.captioned_pairs(recipe, pixels, tokenizer)
    clip = build_clip(recipe, tokenizer)
    yield from work.train("clip", CLIPObjective(clip, recipe), batches, recipe)
    work.keep("clip", clip=clip.eval(), tokenizer=tokenizer)


def _take_over(work: Workspace, name: str) -> UNet2DConditionModel:
    """Take VAE and CLIP of another model as those of this run; returns its UNet."""
    folder = bundled.bundled_models().get(name, Path(name))
    if not (folder / "clip").is_dir():
        raise ValueError(
            f"base must be a folder that `longvid train base` wrote, or the bundled name of one; {name!r} has no clip"
        )
    base: Any = load_image_model(name)
    clip: Any = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32)
    work.keep("vae", vae=base.vae)
    work.keep("clip", clip=clip, tokenizer=base.tokenizer)
    return base.unet.train()


def _leave_art_v(unet: UNet2DConditionModel, name: str) -> None:
    """Give an image UNet the weights that it has inside of an ART-V model."""
    if model_index(name).get("_class_name") != ARTVPipeline.__name__:
        raise ValueError(f"unet_from must be an ART-V model; got {name!r}")
    grown, own = ARTVPipeline.from_pretrained(name).unet.state_dict(), unet.state_dict()
    different = [key for key, value in own.items() if key not in grown or grown[key].shape != value.shape]
    if different:
        raise ValueError(f"unet_from {name!r} was not grown from a UNet like the base's: {different[0]} differs")
    unet.load_state_dict({key: grown[key] for key in own})


def _train_unet(
    work: Workspace, settings: BaseSettings, unet: UNet2DConditionModel | None = None
) -> Iterator[TrainingRecord]:
    if work.model("unet"):
        return
    recipe = settings.unet
    vae, (clip, tokenizer) = _load_vae(work), _load_clip(work)
    if settings.data.path is None:
        latents, scenes = drawn_latents(work, vae, recipe)
        batches = unet_batches(recipe, latents, scenes, tokenizer)
    else:
        store = yield from own_latents(work, settings.data, vae, tokenizer)
        batches = captioned.captioned_latents(recipe, store, tokenizer)
    torch.manual_seed(recipe.seed)
    if unet is None:
        unet = build_unet(recipe, vae.config.latent_channels, clip.config.text_config.hidden_size)
    objective = UNetObjective(unet, clip.text_model, build_scheduler(recipe.beta_end, recipe.prediction_type), recipe)
    yield from work.train("unet", objective, batches, recipe)
    work.keep("unet", unet=unet.eval())


def _assemble(work: Workspace, folder: str, recipe: UNetRecipe) -> None:
    """Save the stages' models as a Stable Diffusion pipeline, and the whole CLIP beside them."""
    clip, tokenizer = _load_clip(work)
    image_encoder = CLIPVisionModelWithProjection(clip.config.vision_config)
    image_encoder.vision_model.load_state_dict(clip.vision_model.state_dict())
    image_encoder.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    StableDiffusionPipeline(
        vae=_load_vae(work),
        text_encoder=clip.text_model,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel.from_pretrained(_part(work, "unet", "unet")),
        scheduler=DPMSolverMultistepScheduler.from_config(  # type: ignore[arg-type]
            build_scheduler(recipe.beta_end, recipe.prediction_type).config, timestep_spacing="trailing"
        ),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        image_encoder=image_encoder,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    clip.save_pretrained(Path(folder, "clip"))


def _pixels(work: Workspace, data: DataOptions) -> FrameStore | None:
    return None if data.path is None else pixel_store(work.root / "frames", find_clips(data.path), data)


def _part(work: Workspace, stage: str, name: str) -> str:
    return str(work.root / stage / "model" / name)


def _load_vae(work: Workspace) -> Any:
    return AutoencoderKL.from_pretrained(_part(work, "vae", "vae")).eval()


def _load_clip(work: Workspace) -> tuple[Any, CLIPTokenizer]:
    clip: Any = CLIPModel.from_pretrained(_part(work, "clip", "clip")).eval()
    return clip, CLIPTokenizer.from_pretrained(_part(work, "clip", "tokenizer"))
