"""Experiments that join parts of different papers."""

from __future__ import annotations

from dataclasses import dataclass

from longvid.reproduce.art_v import CEILING, COMPARED
from longvid.reproduce.experiment import Bench, Experiment, Measure, Setup, Size, Variant
from longvid.reproduce.harivo import DRAWN, NAMED
from longvid.reproduce.harivo import MODEL as HARIVO
from longvid.reproduce.streaming_t2v import MODEL as STREAMING_T2V
from longvid.reproduce.streaming_t2v import NAMED as STREAMING_NAMED
from longvid.reproduce.verdicts import Wins
from longvid.reproduce.video_measures import (
    BACKGROUND_DRIFT,
    COLOR,
    COLOR_DRIFT,
    DIRECTION,
    DRIFT_MEASURES,
    FLICKER,
    JUMP,
    PRESENT,
    PULSING,
    SEAM,
    TRAVEL,
    VANISHING,
    WORST_JOINT,
)


def _bench(setup: Setup) -> Bench:
    from longvid.reproduce.art_v_bench import MitigatedBench

    return MitigatedBench(setup)


MITIGATED_ART_V = Experiment(
    name="mitigated-art-v",
    title="HARIVO's mitigating gradient on ART-V",
    source="HARIVO (arXiv:2410.07763), Sec. 3.7, on ART-V (arXiv:2311.18834); no paper has tried it",
    claim=(
        "HARIVO draws neighbouring frames of a video together at every denoising step, which removes abrupt changes. If"
        " it did the same for ART-V, which makes one frame at a time, less would drift."
    ),
    setup=(
        "ART-V's predictor is wrapped in `mitigated`, with the two frames before as its history: with F = 3 there are two"
        " differences, and the new frame is drawn towards the newest one by a strength that depends on how its"
        " difference compares with that of the two before. `max_ratio=1` keeps it from going beyond. Scale 40 is"
        " HARIVO's for latents eight times as large, about 5 here."
    ),
    variants=(
        *(Variant(f"scale-{scale}", f"scale {scale}", scale, x=scale) for scale in (0, 1, 5, 20)),
        CEILING,
    ),
    measures=DRIFT_MEASURES,
    expectations=tuple(Wins("scale-5", "scale-0", measure.name, from_paper=False) for measure in COMPARED),
    size=Size(num_prompts=12, num_seeds=2, num_frames=40),
    bench=_bench,
    model="longvid/art-v-tiny",
    cpu_minutes=7,
    axis="scale of the mitigating gradient",
    notes=(
        "The gradient sees two differences, not the fifteen of a HARIVO video: it is the method's limit case, in which the"
        " median of the differences is the smaller one.",
        "What is drawn to the frame before moves less: read direction and flicker beside the drift.",
    ),
)


def _streaming_bench(setup: Setup) -> Bench:
    from longvid.reproduce.streaming_t2v_bench import MitigatedStreamingBench

    return MitigatedStreamingBench(setup)


STEADIER = (BACKGROUND_DRIFT, COLOR, DIRECTION, PULSING, JUMP, VANISHING, SEAM)

MITIGATED_STREAMING_T2V = Experiment(
    name="mitigated-streaming-t2v",
    title="HARIVO's mitigating gradient on StreamingT2V",
    source="HARIVO (arXiv:2410.07763), Sec. 3.7, on StreamingT2V (arXiv:2403.14773); no paper has tried it",
    claim=(
        "HARIVO draws neighbouring frames of a video together at every denoising step, which removes abrupt changes. If"
        " it did the same inside of StreamingT2V's chunks, which begin with the frames that they continue, chunks would"
        " also continue more smoothly."
    ),
    setup=(
        f"{STREAMING_NAMED} makes each video from its caption, with its recommended settings; the prediction of every"
        " chunk is wrapped in `mitigated`, with `max_ratio=1`, which keeps a frame from going beyond the one before it. All"
        " scales start from the same noise. Scale 40 is HARIVO's for latents eight times as large, about 5 here."
    ),
    variants=(
        *(Variant(f"scale-{scale}", f"scale {scale}", scale, x=scale) for scale in (0, 1, 5, 20)),
        CEILING,
    ),
    measures=(
        BACKGROUND_DRIFT, COLOR_DRIFT, DIRECTION, COLOR, PRESENT, PULSING, JUMP, VANISHING, SEAM, TRAVEL, FLICKER,
    ),
    expectations=tuple(Wins("scale-5", "scale-0", measure.name, from_paper=False) for measure in STEADIER),
    size=Size(num_prompts=8, num_seeds=2, num_frames=64, batch_size=8),
    bench=_streaming_bench,
    model=STREAMING_T2V,
    cpu_minutes=29,
    axis="scale of the mitigating gradient",
    notes=(
        "The frames of the chunk before are not held: a chunk makes them again, mitigated with the rest, and throws them"
        " away.",
        "What is drawn to the frame before moves less: read travel, direction and flicker beside the rest.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Joined:
    """How the windows of a long video are joined.

    Attributes:
        strategy: "streamed", one window after another; "held", the same with the whole overlap held, less noisy; or
            "joint", all at every step.
        cut: If not held, where a window ends and the next begins: "random" is drawn anew at every step, "middle" is always the
            middle of their overlap.
    """

    strategy: str
    cut: str = "random"


def _windows_bench(setup: Setup) -> Bench:
    from longvid.reproduce.harivo_bench import WindowsBench

    return WindowsBench(setup)


STRETCHES = Measure(
    "stretches", "direction right in parts", "higher", "%", "share of the stretches of 16 frames that move as asked"
)
JOINED = (WORST_JOINT, DIRECTION, STRETCHES, COLOR, BACKGROUND_DRIFT)

HARIVO_WINDOWS = Experiment(
    name="harivo-windows",
    title="HARIVO's windows: one after another, or joined by StreamingT2V's randomized blending",
    source="HARIVO (arXiv:2410.07763) with StreamingT2V (arXiv:2403.14773), Sec. 4.3; no paper has tried it",
    claim=(
        "HARIVO makes one window of frames. StreamingT2V joins overlapping windows at a frame of their overlap that is drawn"
        " anew at every denoising step, and reports smoother transitions than with plain concatenation, even of windows"
        " that share their noise. If it does the same for HARIVO, joint windows with random cuts have the least visible"
        " joints and stay the most alike from window to window; with a constant cut, neighbours agree on nothing but their"
        " noise."
    ),
    setup=(
        f"{NAMED} makes each video from its caption in windows that overlap by a third, with its recommended settings."
        " All variants start from the same noise of every frame. Streamed windows are finished one by one; the next one"
        " is held to the last frames of the one before, up to a random cut. Joint windows are denoised together and joined"
        " at every step: at a random frame of each overlap, or always at its middle. Held windows are streamed ones that are"
        " held to the whole overlap and see it at half the timestep."
    ),
    variants=(
        Variant("streamed", "streamed", Joined("streamed")),
        Variant("held", "streamed, held", Joined("held")),
        Variant("joint", "joint, random cuts", Joined("joint")),
        Variant("joint-middle", "joint, cut in the middle", Joined("joint", "middle")),
        DRAWN,
    ),
    measures=(SEAM, WORST_JOINT, JUMP, DIRECTION, STRETCHES, COLOR, PRESENT, BACKGROUND_DRIFT, COLOR_DRIFT, FLICKER),
    expectations=(
        *(Wins("joint", "joint-middle", measure.name, from_paper=False) for measure in JOINED),
        *(Wins("streamed", "joint-middle", measure.name, from_paper=False) for measure in JOINED),
        *(Wins("joint", "streamed", measure.name, from_paper=False) for measure in JOINED),
        *(Wins("held", "streamed", measure.name, from_paper=False) for measure in (SEAM, *JOINED)),
    ),
    size=Size(num_prompts=8, num_seeds=2, num_frames=96, batch_size=4),
    bench=_windows_bench,
    model=HARIVO,
    cpu_minutes=22,
    notes=(
        "Where a model was trained for it, streamed windows behind the first hear the frame tokens of an empty prompt, so"
        " that the overlap alone says how things move; joint windows all hear their own, which tell the whole script of a"
        " window in every window.",
        "The middle of the overlap is the cut that Eq. 8 of StreamingT2V takes as printed.",
    ),
)
