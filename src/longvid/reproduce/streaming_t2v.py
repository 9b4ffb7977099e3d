"""Experiments on StreamingT2V and its enhancer that need no training: Fig. 4, Appendix D.2 and D.3, and the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longvid.reproduce.experiment import Bench, Experiment, Measure, Setup, Size, Variant
from longvid.reproduce.memory_measures import IDENTITY, MEMORY_MEASURES, RETURNS, SCENE_DRIFT, SPRITE_DRIFT, UNTOLD
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
    SHARPNESS_DRIFT,
    WORST_JOINT,
)

MODEL, ENHANCER = "longvid/streaming-t2v-tiny", "longvid/enhancer-tiny"
DRAWN = Variant("drawn", "drawn, through the model's autoencoder", reference=True)
NAMED = f"`{MODEL}`, or the model that the command below names,"


@dataclass(frozen=True)
class Enhanced:
    """How the chunks of a video are enhanced and joined.

    Attributes:
        overlap: Whether chunks overlap.
        shared_noise: Whether two chunks have the same noise where they overlap.
        cut: Where neighbours are joined, "middle" or "random".
        each_step: Whether they are joined at every denoising step, or when all chunks are finished.
    """

    overlap: bool = True
    shared_noise: bool = True
    cut: str = "middle"
    each_step: bool = False


@dataclass(frozen=True)
class Changed:
    """The same model with other components or constants, and other call arguments.

    Attributes:
        parts: Arguments of the pipeline, by name; None takes a component away.
        call: Call arguments.
    """

    parts: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)


def _blending_bench(setup: Setup) -> Bench:
    from longvid.reproduce.enhancer_bench import BlendingBench

    return BlendingBench(setup)


def _memory_bench(setup: Setup) -> Bench:
    from longvid.reproduce.streaming_t2v_bench import MemoryBench

    return MemoryBench(setup)


def _context_bench(setup: Setup) -> Bench:
    from longvid.reproduce.streaming_t2v_bench import ContinuedBench

    return ContinuedBench(setup)


FLOW_STD = Measure(
    "flow_std",
    "deviation of the flow",
    "lower",
    "px",
    "standard deviation of the flow's magnitude over the picture, mean over the frames, at 128 x 128 pixels (OpenCV DIS)",
)
FLOW_TIME = Measure(
    "flow_time",
    "deviation of the flow over time",
    "lower",
    "px",
    "standard deviation over the frames of the flow's mean magnitude over the picture",
)
DISTANCE = Measure("distance", "distance to the drawn video", "lower", "/255", "mean absolute difference of all pixels")
JOINED = (FLOW_STD, FLOW_TIME, WORST_JOINT)

BLENDING = Experiment(
    name="streaming-t2v-blending",
    title="StreamingT2V: chunks of the enhancer on their own, with shared noise, and with randomized blending",
    source="StreamingT2V (arXiv:2403.14773), Sec. 4.3, Fig. 4, App. D.3 and Fig. 15",
    claim=(
        "The standard deviation of the optical flow's magnitude is 8.72 where every chunk is enhanced independently, 6.01"
        " where neighbours share their noise, and 3.32 with randomized blending: shared noise makes transitions smoother,"
        " randomized blending makes them much smoother still."
    ),
    setup=(
        f"A drawn video is made four times coarser, enlarged again and given noise; `{ENHANCER}`, or the model that the"
        " command below names, enhances it under its caption in chunks of 16 frames. Chunks that overlap do so by 8. All"
        " variants have the same noise in every frame that only one chunk makes. Chunks that are enhanced independently"
        " are joined when they are finished, in the middle of their overlap."
    ),
    variants=(
        Variant("naive", "independent, no overlap", Enhanced(overlap=False)),
        Variant("own-noise", "independent, with overlap", Enhanced(shared_noise=False)),
        Variant("shared-noise", "shared noise", Enhanced()),
        Variant("every-step", "shared noise, joined in the middle at every step", Enhanced(each_step=True)),
        Variant("random", "randomized blending", Enhanced(cut="random", each_step=True)),
        Variant("input", "the video that is enhanced", reference=True),
        DRAWN,
    ),
    measures=(
        FLOW_STD, FLOW_TIME, SEAM, WORST_JOINT, JUMP, PULSING, DISTANCE, DIRECTION, COLOR, BACKGROUND, BACKGROUND_DRIFT,
    ),
    expectations=(
        *(Wins("shared-noise", "naive", measure.name) for measure in JOINED),
        *(Wins("random", "shared-noise", measure.name) for measure in JOINED),
        *(Wins("random", "naive", measure.name) for measure in JOINED),
        *(Wins("shared-noise", "own-noise", measure.name, from_paper=False) for measure in JOINED),
        *(Wins("random", "every-step", measure.name, from_paper=False) for measure in JOINED),
    ),
    size=Size(num_prompts=8, num_seeds=2, num_frames=64, batch_size=8),
    bench=_blending_bench,
    model=ENHANCER,
    cpu_minutes=22,
    notes=(
        "The paper does not say whether chunks that are enhanced independently overlap, nor whether its deviation is over"
        " the picture or over time: both readings of both are here. Its figure is of real videos at"
        " 720 x 720 pixels; here a sprite moves over a background that stands still, which has a deviation of its own:"
        " compare with the drawn videos.",
        "Where chunks are joined at every step at a constant place, each still sees what the other makes of the overlap:"
        " that is a part of randomized blending, and not one of the paper's rows.",
        "The largest step in an overlap is read at the same places for all variants: where chunks that overlap may be"
        " joined. What pulses inside of chunks adds to the deviation of the flow, too.",
    ),
)  # fmt: skip

KEPT = (IDENTITY, SPRITE_DRIFT, SCENE_DRIFT)

APM = Experiment(
    name="streaming-t2v-apm",
    title="StreamingT2V: with and without the long-term memory",
    source="StreamingT2V (arXiv:2403.14773), Sec. 4.2, App. D.2, Fig. 13 and Fig. 14",
    claim=(
        "The appearance preservation module keeps identities and the scene: the re-identification score rises from 93.42"
        " to 94.95, the distance to the first scene (LPIPS) falls from 0.192 to 0.151."
    ),
    setup=(
        f"{NAMED} makes each video from its caption, with its recommended settings, with the anchor frame and without it."
        " In every other scene the sprite passes out of sight and should come back. Every other pair of captions names no"
        " colours, so that only what was made can say them. In the place of the two scores, the judge of the built-in"
        " world compares colour and shape of the sprite at the end with those at the beginning, and the background."
    ),
    variants=(
        Variant("with", "with APM", Changed()),
        Variant("without", "APM taken away", Changed({"apm": None})),
        Variant("blank", "a blank anchor", Changed(call={"anchor_guidance_scale": 0.0})),
        DRAWN,
    ),
    measures=(*MEMORY_MEASURES, DIRECTION, SEAM, FLICKER),
    expectations=(
        *(Wins("with", "without", measure.name) for measure in KEPT),
        *(Wins("with", "blank", measure.name) for measure in KEPT),
        *(Wins("with", "without", measure.name, from_paper=False) for measure in (UNTOLD, RETURNS)),
    ),
    size=Size(num_prompts=8, num_seeds=2, num_frames=240, batch_size=8),
    bench=_memory_bench,
    model=MODEL,
    cpu_minutes=91,
    notes=(
        "One model, trained with APM, makes all rows: taken away at test time is not trained without, which is the paper's"
        " ablation. A blank anchor is something it was trained with now and then.",
        "The recipe that ships, `streaming-t2v-tiny`, trains with no sprites that pass out of sight; they ask for more"
        " than it has seen. The scene is compared in frames that show a sprite, as the tiny autoencoder is far off in"
        " frames without one.",
    ),
)

SAME = (BACKGROUND_DRIFT, COLOR_DRIFT, SHARPNESS_DRIFT, COLOR, DIRECTION)

CONTEXT = Experiment(
    name="streaming-t2v-context",
    title="StreamingT2V: what is kept between two chunks, pixels or latents",
    source="StreamingT2V (arXiv:2403.14773) does not say; its released code keeps pixels",
    claim=(
        "No paper compares them. CAM reads pixels: kept latents are decoded once more, to what the pixels were. Only the"
        " frames of a given video differ, which the autoencoder has not seen yet."
    ),
    setup=(
        f"{NAMED} goes on from the first 8 frames of a drawn video under its caption, with its recommended settings. Both"
        " variants have the same noise. The videos are judged with the given frames at their beginning."
    ),
    variants=(
        Variant("pixels", "context as pixels", Changed({"context": "pixels"})),
        Variant("latents", "context as latents", Changed({"context": "latents"})),
        DRAWN,
    ),
    measures=(*SAME, PRESENT, BACKGROUND, SEAM, JUMP, PULSING, FLICKER),
    expectations=tuple(Wins("pixels", "latents", measure.name, from_paper=False) for measure in SAME),
    size=Size(num_prompts=8, num_seeds=2, num_frames=64, batch_size=8),
    bench=_context_bench,
    model=MODEL,
    cpu_minutes=13,
    notes=(
        "A video from text alone is the same either way, up to rounding. A module that reads latents, such as the paper's"
        " Conc-Cond, is another matter: with pixels, what it reads has been decoded and encoded again for every chunk;"
        " `streaming-t2v-cam` has it both ways.",
    ),
)
