"""Measures what HARIVO's mapping network does to noise, and how Gaussian the noise of videos is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longvid.reproduce.experiment import Measured, Setup, Variant
from longvid.reproduce.harivo import Noise
from longvid.reproduce.harivo_bench import HARIVOBench
from longvid.reproduce.noise_statistics import LEVEL, frame_noise, jarque_bera
from longvid.reproduce.video_measures import directed_scenes
from longvid.sprites.scene import SIZE

NUM_DRAWS = 500
"""Videos of noise that one prompt stands for."""
TOGETHER = 50
"""Videos of noise that are in memory together."""


def check_mapping(bench: HARIVOBench) -> None:
    """Refuse a model that has nothing to look at."""
    if bench.pipe.mapping_network is None:
        raise ValueError(f"expected a model with a mapping network; {bench.model} has none")


class MappingBench(HARIVOBench):
    """Compares what the mapping network gets and gives, at every step of the sampling of one window.

    Raises:
        ValueError: if the model has no mapping network, or its videos are made in more than one window.
    """

    min_frames = 1

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        super().__init__(setup, model)
        check_mapping(self)
        size = self.pipe.config["window_size"]
        if setup.size.num_frames > size:
            raise ValueError(f"num_frames must be at most {size}, one window, here; got {setup.size.num_frames}")

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Make the videos and compare."""
        steps: list[list[dict[str, float]]] = []

        def compare(_network: Any, given: tuple[Tensor, ...], mapped: Tensor) -> None:
            before, after = given[0].double().cpu(), mapped.double().cpu()
            steps.append([changes_of(*pair) for pair in zip(before, after, strict=True)])

        handle = self.pipe.mapping_network.register_forward_hook(compare)
        try:
            scenes = directed_scenes(prompts)
            self.make(variant, scenes, prompts=prompts, seed=seed, output_type="latent")
        finally:
            handle.remove()
        return [_over_steps([step[row] for step in steps]) for row in range(len(prompts))]


def changes_of(before: Tensor, after: Tensor) -> dict[str, float]:
    """How two tensors of one shape differ: the mean and spread of |after - before|, and their means and deviations."""
    size = (after - before).abs()
    return {
        "difference": size.mean().item(),
        "spread": size.std(correction=0).item(),
        "mean_shift": (after.mean() - before.mean()).item(),
        "std_change": (after.std(correction=0) - before.std(correction=0)).item(),
    }


def _over_steps(steps: Sequence[dict[str, float]]) -> Measured:
    """The curves of one video over the steps, and their means."""
    curves = {name: [round(step[name], 6) for step in steps] for name in steps[0]}
    values: dict[str, float | None] = {name: sum(curve) / len(curve) for name, curve in curves.items()}
    rest = [step["difference"] - abs(step["std_change"]) for step in steps]
    return Measured(values | {"steadiness": sum(rest) / len(rest)}, curves)


class NormalityBench(HARIVOBench):
    """Draws videos of noise and tests them; a variant's `how` is a `Noise`.

    Args:
        setup: How much, and of which model the shape and the mapping network are.
        model: The model, if not the one that the setup names.
        num_draws: Videos of noise that one prompt stands for.

    Raises:
        ValueError: if the model has no mapping network.
    """

    min_frames = 2  # neighbours are compared

    def __init__(self, setup: Setup, model: str | None = None, num_draws: int = NUM_DRAWS) -> None:
        super().__init__(setup, model)
        check_mapping(self)
        self.num_draws = num_draws

    @property
    def settings(self) -> dict[str, Any]:
        """With the number of draws."""
        return super().settings | {"draws": self.num_draws}

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Draw and test as many videos of noise for each prompt."""
        return [Measured(self._tested(variant.how, seed * 1_000_003 + prompt)) for prompt in prompts]

    @torch.no_grad()
    def _tested(self, how: Noise, seed: int) -> dict[str, float | None]:
        side, frames = SIZE // self.pipe.vae_scale_factor, self.setup.size.num_frames
        generator, sums = torch.Generator().manual_seed(seed), torch.zeros(5, dtype=torch.float64)
        for start in range(0, self.num_draws, TOGETHER):
            shape = (min(TOGETHER, self.num_draws - start), self.pipe.latent_channels, frames, side, side)
            if how.kind == "mapped":
                noise = self._mapped(frame_noise("independent", shape, generator))
            else:
                noise = frame_noise(how.kind, shape, generator, alpha=how.alpha)
            sums += torch.stack(_statistics(noise.double())) * len(noise)
        names = ("passes", "frames_pass", "correlation", "mean", "std")
        return dict(zip(names, (sums / self.num_draws).tolist(), strict=True))

    def _mapped(self, noise: Tensor) -> Tensor:
        network = self.pipe.mapping_network
        return network(noise.to(network.device, network.dtype)).cpu()


def _statistics(noise: Tensor) -> list[Tensor]:
    """The means over videos (B, C, F, h, w) of what is measured in each."""
    passes = jarque_bera(noise.flatten(1))[1] > LEVEL
    frames_pass = jarque_bera(noise.transpose(1, 2).flatten(2))[1] > LEVEL
    centred = noise.transpose(1, 2).flatten(2)
    centred = centred - centred.mean(-1, keepdim=True)
    length = centred.square().sum(-1).sqrt()
    products = (centred[:, 1:] * centred[:, :-1]).sum(-1) / (length[:, 1:] * length[:, :-1])
    spread = noise.flatten(1).std(1, correction=0)
    return [passes.double().mean(), frames_pass.double().mean(), products.mean(), noise.mean(), spread.mean()]
