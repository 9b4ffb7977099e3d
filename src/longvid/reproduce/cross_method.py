"""Experiments that join parts of different papers."""

from __future__ import annotations

from longvid.reproduce.art_v import CEILING, COMPARED
from longvid.reproduce.experiment import Bench, Experiment, Setup, Size, Variant
from longvid.reproduce.verdicts import Wins
from longvid.reproduce.video_measures import DRIFT_MEASURES


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
    axis="scale of the mitigating gradient",
    notes=(
        "The gradient sees two differences, not the fifteen of a HARIVO video: it is the method's limit case, in which the"
        " median of the differences is the smaller one.",
        "What is drawn to the frame before moves less: read direction and flicker beside the drift.",
    ),
)
