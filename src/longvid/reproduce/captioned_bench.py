"""What the benches share whose pipelines make videos from captions alone: the same scenes, the same noise everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from longvid.reproduce.experiment import Measured, Variant
from longvid.reproduce.video_bench import VideoBench, generators_of
from longvid.reproduce.video_measures import directed_scenes, read_steadiness, read_videos
from longvid.sprites.captions import caption_clip
from longvid.sprites.draw import draw
from longvid.sprites.evaluate_scenes import fit_size, reconstruct
from longvid.sprites.scene import SIZE, Scene


class CaptionedBench(VideoBench):
    """Videos of a model under changes of the call; each is judged against its scene. A `how` holds call arguments."""

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Make the videos of scenes, or draw them, and read them."""
        scenes = self.scenes(prompts)
        if variant.reference:
            videos = reconstruct(self.pipe.vae, draw(scenes, self.setup.size.num_frames))
        else:
            made = self.make(variant, scenes, prompts=prompts, seed=seed, output_type="pt").frames
            videos = fit_size(made.transpose(1, 2))
        return [Measured(row) for row in self.read(variant, scenes, videos)]

    def make(
        self, variant: Variant, scenes: Sequence[Scene], *, prompts: Sequence[int], seed: int, **options: Any
    ) -> Any:
        """The pipeline's output."""
        fixed = {"num_frames": self.setup.size.num_frames, "height": SIZE, "width": SIZE, **options}
        captions = [self.caption(prompt, scene) for prompt, scene in zip(prompts, scenes, strict=True)]
        call = self.call(variant) | fixed
        return self.pipeline(variant, seed)(captions, generator=generators_of(prompts, seed), **call)

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """What is read in videos (B, 3, F, 64, 64) in [0, 1]."""
        rows = zip(read_videos(scenes, videos), read_steadiness(videos), strict=True)
        return [attributes | steadiness for attributes, steadiness in rows]

    def scenes(self, prompts: Sequence[int]) -> list[Scene]:
        """The numbered scenes."""
        return directed_scenes(prompts)

    def caption(self, prompt: int, scene: Scene) -> str:
        """What the pipeline is told of a scene."""
        return caption_clip(scene)

    def pipeline(self, variant: Variant, seed: int) -> Any:
        """The pipeline of a variant; where it is trained, of that training."""
        return self.pipe

    def call(self, variant: Variant) -> dict[str, Any]:
        """Its call arguments."""
        return dict(variant.how or {})
