"""Where a run's latents come from: the drawn world, or a user's clips; each made once, in the run's folder."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import CLIPTokenizer

from longvid.sprites import Scene
from longvid.training import captioned
from longvid.training.data import DataOptions, find_clips
from longvid.training.frame_store import latent_store
from longvid.training.latents import latent_cache, training_scenes
from longvid.training.workspace import Workspace


def own_latents(
    work: Workspace, data: DataOptions, vae: Any, tokenizer: CLIPTokenizer
) -> Any:  # a generator of records that returns the store
    """Latents of the user's clips, each made and kept once."""
    clips = find_clips(str(data.path))
    captioned.check_captions(tokenizer, [clip.caption for clip in clips])
    store = latent_store(work.root / "latents", clips, data, vae.eval().to(work.process.device))
    yield from work.fill("latents", store)
    vae.to("cpu")
    return store


def drawn_latents(
    work: Workspace, vae: Any, recipe: Any, scenes: list[Scene] | None = None, *, num_frames: int | None = None
) -> tuple[Tensor, list[Scene]]:
    """Latents (N, F, C, h, w) of drawn clips, and their scenes: by default as many and as long as the recipe says."""
    if scenes is None:
        scenes = training_scenes(recipe.num_scenes, recipe.seed, tuple(recipe.motions))
    with work.process.main_process_first():
        latents = latent_cache(work.root / "latents.safetensors", vae.eval(), scenes, num_frames or recipe.num_frames)
    return latents, scenes
