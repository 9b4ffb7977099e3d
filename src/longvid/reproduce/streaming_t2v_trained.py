"""The experiment that trains CAM and its alternatives: StreamingT2V's Appendix D.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longvid.reproduce.experiment import Bench, Experiment, Measure, Setup, Size, Variant
from longvid.reproduce.streaming_t2v import DRAWN
from longvid.reproduce.verdicts import Wins
from longvid.reproduce.video_measures import (
    BACKGROUND,
    BACKGROUND_DRIFT,
    COLOR,
    COLOR_DRIFT,
    DIRECTION,
    FLICKER,
    JUMP,
    PRESENT,
    PULSING,
    SEAM,
)


@dataclass(frozen=True)
class Conditioning:
    """How a video model is conditioned on the frames of the chunk before, and what of it learns.

    Attributes:
        kind: "attended" is CAM, "added" Add-Cond, "concatenated" Conc-Cond.
        learns: The conditioning module alone, or also the UNet without its temporal layers. None: nothing is trained,
            and a new module changes nothing.
        context: What is kept between chunks.
        awake: Whether CAM starts as `longvid.training.streaming_t2v.wake` leaves it, instead of drawn.
    """

    kind: Literal["attended", "added", "concatenated"] = "attended"
    learns: Literal["module", "module and UNet"] | None = "module"
    context: Literal["pixels", "latents"] = "pixels"
    awake: bool = False


def _bench(setup: Setup) -> Bench:
    from longvid.reproduce.streaming_t2v_training import TrainedStreamingBench

    return TrainedStreamingBench(setup)


SCUTS = Measure("scuts", "scene cuts (SCuts)", "lower", "", "found by PySceneDetect; none where it is not installed")
CONTINUES = (SCUTS, SEAM, BACKGROUND_DRIFT)
BASELINES = ("added", "concatenated", "concatenated-unet")

CAM = Experiment(
    name="streaming-t2v-cam",
    title="StreamingT2V: CAM against added and concatenated frames",
    source="StreamingT2V (arXiv:2403.14773), App. D.1 and D.1.1",
    claim=(
        "With CAM (and no long-term memory) 0.03 scene cuts are found per video, with features that are added to the skip"
        " connections (Add-Cond) 0.284, with frames joined to the input of the UNet (Conc-Cond) 0.24."
    ),
    setup=(
        "All models grow from the text-to-video model `longvid/enhancer-tiny` and learn the same number of steps from the"
        " same clips in the same order, by the recipe `streaming-t2v-tiny` without its second stage; every seed is a"
        " training of its own. CAM is there twice: as new as the paper starts it, and with the start that"
        " `longvid/streaming-t2v-tiny` was given, which lets it attend to the right frame from the first step on. They make"
        " each video from its caption in chunks of 16 frames that continue 8, with the same noise. All start from the"
        " same first chunk."
    ),
    variants=(
        Variant("cam", "CAM", Conditioning()),
        Variant("cam-awake", "CAM, awake start", Conditioning(awake=True)),
        Variant("added", "Add-Cond", Conditioning("added")),
        Variant("concatenated", "Conc-Cond", Conditioning("concatenated")),
        Variant("concatenated-latents", "Conc-Cond, context kept as latents", Conditioning("concatenated", context="latents")),
        Variant("concatenated-unet", "Conc-Cond, UNet learns too", Conditioning("concatenated", "module and UNet")),
        Variant("none", "no short-term memory", Conditioning(learns=None)),
        DRAWN,
    ),
    measures=(
        SCUTS, SEAM, JUMP, BACKGROUND_DRIFT, COLOR_DRIFT, DIRECTION, COLOR, PRESENT, BACKGROUND, PULSING, FLICKER,
    ),
    expectations=(
        *(Wins("cam", worse, measure.name) for worse in BASELINES for measure in CONTINUES),
        *(Wins("cam", "none", measure.name, from_paper=False) for measure in CONTINUES),
        *(Wins("cam-awake", worse, measure.name, from_paper=False) for worse in ("cam", *BASELINES) for measure in CONTINUES),
        *(Wins("concatenated-latents", "concatenated", measure.name, from_paper=False) for measure in CONTINUES),
    ),
    size=Size(num_prompts=12, num_seeds=2, num_frames=64, batch_size=6, training_steps=300),
    bench=_bench,
    cpu_minutes=150,
    notes=(
        "The paper draws the places of the given frames at random in training for Add-Cond and Conc-Cond; here they lie at"
        " the beginning, as when sampling, for all three. That makes it easier for the two.",
        "With the UNet at rest Conc-Cond has a single convolution to learn with; the paper does not say what of its UNet"
        " learns. In the row where it learns too, everything does but the temporal layers, as in the second stage of"
        " StreamingT2V, and the first chunk then comes from another UNet.",
        "CAM has more weights than the others: a copy of the UNet's encoder, like Add-Cond, and attention.",
        "Videos that are made without a memory show what chance continues.",
        "The models are trained for a short time on a CPU's budget; what a module is worth to a fully trained model may"
        " differ. The interval is over prompts: with few trainings, the seeds' agreement says more about the luck of one.",
    ),
)  # fmt: skip
