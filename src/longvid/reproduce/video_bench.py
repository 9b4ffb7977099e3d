"""What the benches share that make videos with a model: loading it, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from longvid.pipelines.fingerprint import fingerprint_of
from longvid.reproduce.experiment import Setup

MIN_FRAMES = 9
"""The judge needs so many to read a motion."""
PARTS = ("vae", "text_encoder", "unet")


class VideoBench:
    """A model, bundled or in a folder, and the settings that its videos depend on.

    Args:
        setup: How much, where, and which model.
        model: The model, if not the one that the setup names.
    """

    kind: type[Any]
    default: ClassVar[str]
    min_frames: ClassVar[int] = MIN_FRAMES

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        self.check_frames(setup)
        self.setup, self.model = setup, model or setup.model or self.default
        self.pipe = self.load(self.kind, self.model)

    @classmethod
    def check_frames(cls, setup: Setup) -> None:
        """Refuse videos in which no motion can be read."""
        if setup.size.num_frames < cls.min_frames:
            raise ValueError(f"num_frames must be at least {cls.min_frames} here; got {setup.size.num_frames}")

    def load(self, kind: type[Any], model: str, **components: Any) -> Any:
        """A quiet pipeline on the device."""
        pipe = kind.from_pretrained(model, **components)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(self.setup.device)

    @property
    def settings(self) -> dict[str, Any]:
        """The model and the length of the videos."""
        return {"model": self.model, "weights": self.pipe.fingerprint(), "frames": self.setup.size.num_frames}


def generators_of(prompts: Sequence[int], seed: int) -> list[torch.Generator]:
    """One source of noise per video: it depends on scene and seed alone, so variants differ in nothing else."""
    return [torch.Generator().manual_seed(seed * 1_000_003 + prompt) for prompt in prompts]


def weights_of(image_model: Any) -> dict[str, str]:
    """What an image model is, part by part."""
    return {name: fingerprint_of(getattr(image_model, name)) for name in PARTS}
