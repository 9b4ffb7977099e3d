"""Makes ART-V's videos for the experiments: each from the drawn first frame and the caption, the same noise everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from longvid.pipelines.art_v import ARTVPipeline
from longvid.reproduce.experiment import Measured, Variant
from longvid.reproduce.statistics import rank_correlation
from longvid.reproduce.video_bench import VideoBench, generators_of
from longvid.reproduce.video_measures import directed_scenes, read_videos
from longvid.samplers.mitigating_gradient import mitigated
from longvid.sprites.captions import caption_clip
from longvid.sprites.draw import draw
from longvid.sprites.evaluate_scenes import fit_size, reconstruct
from longvid.sprites.judge import read_batch
from longvid.sprites.scene import SIZE, Scene


class ARTVBench(VideoBench):
    """Videos of a bundled model, or one in a folder, under changes of the call; each is judged against its scene.

    A variant's `how` holds call arguments. The noise of a video depends on its scene and seed alone, so that variants
    differ in nothing else.

    Args:
        setup: How much, where, and which model.
        model: The model, if not the one that the setup names.
    """

    kind: type[ARTVPipeline] = ARTVPipeline
    default = "longvid/art-v-tiny"

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Make the videos of scenes and read them."""
        scenes = directed_scenes(prompts)
        drawn = draw(scenes, self.setup.size.num_frames)
        if variant.reference:
            videos = torch.cat([drawn[:, :, :1], reconstruct(self.pipe.vae, drawn[:, :, 1:])], dim=2)
        else:
            videos = self.make(variant, scenes, drawn[:, :, 0], prompts=prompts, seed=seed).frames
        return [Measured(values) for values in read_videos(scenes, videos)]

    def make(
        self, variant: Variant, scenes: Sequence[Scene], first: Tensor, *, prompts: Sequence[int], seed: int
    ) -> Any:
        """The pipeline's output; `frames` (B, 3, F, 64, 64) begin with the given first ones (B, 3, 64, 64)."""
        captions, pipe = [caption_clip(scene) for scene in scenes], cast(Any, self.pipeline(variant, seed))
        options = {"num_frames": self.setup.size.num_frames, "height": SIZE, "width": SIZE} | self.call(variant)
        output = pipe(captions, image=first, generator=generators_of(prompts, seed), output_type="pt", **options)
        output.frames = fit_size(output.frames.transpose(1, 2))
        return output

    def pipeline(self, variant: Variant, seed: int) -> ARTVPipeline:
        """The pipeline of a variant; where it is trained, of that training."""
        return self.pipe

    def call(self, variant: Variant) -> dict[str, Any]:
        """Its call arguments."""
        return dict(variant.how or {})


class MaskBench(ARTVBench):
    """Reads the predicted masks: their mean at every evaluation of the networks, over all and over parts of a frame."""

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Make the videos and read their masks, from the second frame on: the first was given."""
        scenes = directed_scenes(prompts)
        first = draw(scenes, 1)[:, :, 0]
        made = self.make(variant, scenes, first, prompts=prompts, seed=seed)
        masks = made.masks.float().cpu()  # (B, S, F or F - 1, h, w)
        sprites = torch.stack([reading.mask for reading in read_batch(made.frames)]).float()
        share = torch.nn.functional.adaptive_avg_pool2d(sprites, masks.shape[-2:])[:, 1:]
        return [_read_masks(one[:, -share.shape[1] :], share[row]) for row, one in enumerate(masks)]

    def call(self, variant: Variant) -> dict[str, Any]:
        """With masks."""
        return {"output_masks": True} | super().call(variant)


class MitigatedARTVPipeline(ARTVPipeline):
    """ART-V with HARIVO's mitigating gradient: a new frame is drawn towards the newest of the two before it.

    `scale` is its strength. A frame is never moved beyond the one before it.
    """

    scale = 0.0

    def predictor(self, window: Any, state: Any, conditions: Any, **options: Any) -> Any:
        """The prediction of `ARTVPipeline`, mitigated."""
        predict = super().predictor(window, state, conditions, **options)
        known = [state.context[name] for name in ("older", "newest") if name in state.context]
        history = torch.stack(known, dim=2) if known else None
        return mitigated(predict, self.scheduler, self.scale, history=history, max_ratio=1.0)  # type: ignore[arg-type]


class MitigatedBench(ARTVBench):
    """Videos under the mitigating gradient; a variant's `how` is its scale."""

    kind = MitigatedARTVPipeline

    def pipeline(self, variant: Variant, seed: int) -> ARTVPipeline:
        """The pipeline at the variant's scale."""
        self.pipe.scale = float(variant.how)
        return self.pipe

    def call(self, variant: Variant) -> dict[str, Any]:
        """Nothing but the recommended defaults."""
        return {}


def _read_masks(masks: Tensor, sprite: Tensor) -> Measured:
    """Mean masks of one video (S, F, h, w), and those on and off the sprite, whose share of a place is (F, h, w)."""
    ground = 1 - sprite
    curves = {
        "everywhere": masks.mean((1, 2, 3)),
        "background": (masks * ground).sum((1, 2, 3)) / ground.sum().clamp(min=1e-6),
        "sprite": (masks * sprite).sum((1, 2, 3)) / sprite.sum().clamp(min=1e-6),
    }
    listed = {name: [round(value, 5) for value in curve.tolist()] for name, curve in curves.items()}
    mean = listed["everywhere"]
    values: dict[str, float | None] = {
        "first": mean[0],
        "last": mean[-1],
        "rise": mean[-1] - mean[0],
        "order": rank_correlation(mean),
        "background_rise": listed["background"][-1] - listed["background"][0],
        "sprite_rise": listed["sprite"][-1] - listed["sprite"][0],
        "copies_background": sum(listed["background"]) / len(mean) - sum(listed["sprite"]) / len(mean),
    }
    return Measured(values, listed)
