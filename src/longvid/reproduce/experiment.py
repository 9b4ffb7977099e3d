"""What an experiment is made of; nothing here needs torch, so that experiments can be listed at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from longvid.reproduce.verdicts import Expectation

__all__ = ["Bench", "Expectation", "Experiment", "Measure", "Measured", "Setup", "Size", "Variant"]


@dataclass(frozen=True)
class Measure:
    """A number that is read in every video.

    Attributes:
        name: Its key in the file of measurements.
        label: What a table calls it.
        better: Which numbers are better; None where neither is.
        unit: What follows the number. "%" shows a share in [0, 1] as a percentage.
        about: A sentence on how it is measured.
    """

    name: str
    label: str
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    about: str = ""

    def show(self, value: float | None, *, difference: bool = False, unit: bool = True) -> str:
        """A number with its unit; a difference has a sign, and one of shares is in points of a percentage."""
        if value is None:
            return "–"
        shown, digits = (100 * value, 1) if self.unit == "%" else (value, 2)
        text = f"{round(shown, digits) + 0.0:{'+' if difference else ''}.{digits}f}".replace("-", "−")  # no −0.00
        word = "points" if difference and self.unit == "%" else self.unit
        return f"{text} {word}".rstrip() if unit else text


@dataclass(frozen=True)
class Variant:
    """One way of making the videos: a row of the table.

    Attributes:
        name: Its key in the file of measurements.
        label: What a table calls it.
        how: What the bench needs to know of it.
        x: Its place on the axis of a sweep; None lies on none.
        series: The curve of a sweep that it lies on; a sweep may have several.
        reference: It shows what can be reached and is not made by a model; it is measured with one seed.
    """

    name: str
    label: str
    how: Any = None
    x: float | None = None
    reference: bool = False
    series: str = ""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        num_prompts: Scenes; the first n are the same for every larger number.
        num_seeds: Seeds that each is made with; where an experiment trains, each seed is a training.
        num_frames: Frames of a video.
        batch_size: Videos that are made together.
        training_steps: Of every model, where an experiment trains.
    """

    num_prompts: int
    num_seeds: int
    num_frames: int
    batch_size: int = 16
    training_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_prompts", "num_seeds", "num_frames", "batch_size", "training_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    @property
    def videos(self) -> str:
        """Prompts and seeds in words."""
        return f"{self.num_prompts} prompts × {self.num_seeds} seed{'s' if self.num_seeds > 1 else ''}"


@dataclass(frozen=True)
class Setup:
    """What a bench is built with: how much, where trained models go, on which device, and who hears of the progress.

    `model` is a bundled name, folder or hub id of what is measured, None: the experiment's own.
    """

    size: Size
    models: Path = Path("models/reproduce")
    device: str = "cpu"
    say: Callable[[str], None] = lambda _: None
    model: str | None = None


@dataclass(frozen=True)
class Measured:
    """What was read in one video: numbers by measure (None where it has none), and curves by name."""

    values: Mapping[str, float | None]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Bench(Protocol):
    """Makes and measures the videos of an experiment."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers, of plain JSON types; a file of measurements is valid for one set of them."""
        ...

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Measure one video of each of the numbered scenes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment that `longvid reproduce` can run.

    Attributes:
        name: What the command calls it.
        title: The heading of its page.
        source: Paper, section and figure.
        claim: What the paper says, in a sentence or two.
        setup: What is done here, in sentences.
        variants: The rows of the table.
        measures: Its columns.
        expectations: The order that the paper (or we, where there is none) expects.
        size: How much is measured by default.
        bench: Builds what makes and measures the videos.
        model: What is measured unless another model is named; None where models are trained.
        cpu_minutes: What the default size takes on one CPU core beside another program, by a run of it or of a part; None
            where nobody measured.
        axis: What the variants of a sweep differ in, with its unit; None if they are no sweep.
        curves: Curves of single videos that the figure shows, by name, with their labels.
        curve_axis: What the curves run over.
        notes: What a reader must know beside the figures.
    """

    name: str
    title: str
    source: str
    claim: str
    setup: str
    variants: tuple[Variant, ...]
    measures: tuple[Measure, ...]
    expectations: tuple[Expectation, ...]
    size: Size
    bench: Callable[[Setup], Bench]
    model: str | None = None
    cpu_minutes: float | None = None
    axis: str | None = None
    curves: Mapping[str, str] = field(default_factory=dict)
    curve_axis: str = ""
    notes: tuple[str, ...] = ()

    def measure(self, name: str) -> Measure:
        """The measure of that name."""
        return _named(name, self.measures)

    def variant(self, name: str) -> Variant:
        """The variant of that name."""
        return _named(name, self.variants)

    def seeds(self, variant: Variant, size: Size) -> range:
        """The seeds that a variant is measured with."""
        return range(1 if variant.reference else size.num_seeds)


def _named(name: str, things: Sequence[Any]) -> Any:
    for thing in things:
        if thing.name == name:
            return thing
    raise ValueError(f"expected one of {', '.join(thing.name for thing in things)}; got {name!r}")
