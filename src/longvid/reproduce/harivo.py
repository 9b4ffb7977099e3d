"""Experiments on a HARIVO model that need no training: Fig. 6 (c), Fig. A1 and Table A1."""

from __future__ import annotations

from dataclasses import dataclass

from longvid.reproduce.experiment import Bench, Experiment, Measure, Setup, Size, Variant
from longvid.reproduce.verdicts import Rises, Wins
from longvid.reproduce.video_measures import (
    BACKGROUND,
    BACKGROUND_DRIFT,
    COLOR,
    DIRECTION,
    FLICKER,
    JUMP,
    PRESENT,
    PULSING,
    TRAVEL,
    VANISHING,
)

MODEL = "longvid/harivo-tiny"
DRAWN = Variant("drawn", "drawn, through the model's autoencoder", reference=True)
NAMED = f"`{MODEL}`, or the model that the command below names,"


@dataclass(frozen=True)
class Mitigation:
    """How strongly neighbouring frames are drawn together.

    Attributes:
        multiple: Of the paper's scale, 40.
        capped: Whether a step takes away at most the share of a difference that the model recommends; False is the
            paper's formula.
    """

    multiple: float
    capped: bool = True


@dataclass(frozen=True)
class Noise:
    """How the noise of the frames of a video belongs together.

    Attributes:
        kind: "independent"; "mixed" or "progressive" as in PYoCo; "shared", the same in all frames; or "mapped",
            independent noise behind the model's mapping network.
        alpha: How strongly frames belong together in mixed and progressive noise.
    """

    kind: str
    alpha: float = 0.0


def _mitigation_bench(setup: Setup) -> Bench:
    from longvid.reproduce.harivo_bench import MitigationBench

    return MitigationBench(setup)


def _mapping_bench(setup: Setup) -> Bench:
    from longvid.reproduce.mapping_bench import MappingBench

    return MappingBench(setup)


def _normality_bench(setup: Setup) -> Bench:
    from longvid.reproduce.mapping_bench import NormalityBench

    return NormalityBench(setup)


CAPPED, UNCAPPED = "cap as recommended", "without a cap (the paper's formula)"
ABRUPT = (PULSING, JUMP, VANISHING)
ASKED = (DIRECTION, COLOR, PRESENT)

MG_SCALE = Experiment(
    name="harivo-mg-scale",
    title="HARIVO: scale of the mitigating gradient",
    source="HARIVO (arXiv:2410.07763), Sec. 3.7, Sec. 4.2, Fig. 6 (c) and App. D",
    claim=(
        "Mitigating gradient sampling reduces momentary artifacts and abrupt changes, keeps objects from suddenly"
        " disappearing or emerging, and makes the video better as a whole; too large a scale may pause or distort it: 40"
        " is best, 150 is too smooth."
    ),
    setup=(
        f"{NAMED} makes each video from its caption, with its recommended settings except the scale and the cap of the"
        " mitigating gradient. Scales are multiples of the paper's 40: 4 × stands for its 150, and 0.125 × is to the tiny"
        " model's latents, an eighth of the paper's in size, what 40 is to its own. Without a cap a step may take"
        " away more than the difference of two frames. Every variant starts from the same noise. In the place of the"
        " paper's eye, the judge of the built-in world counts."
    ),
    variants=(
        *(
            Variant(f"{multiple}x", f"{multiple} ×", Mitigation(multiple), x=multiple, series=CAPPED)
            for multiple in (0, 0.125, 0.5, 1, 4, 10)
        ),
        *(
            Variant(
                f"{multiple}x-uncapped",
                f"{multiple} ×, no cap",
                Mitigation(multiple, capped=False),
                x=multiple,
                series=UNCAPPED,
            )
            for multiple in (1, 4)
        ),
        DRAWN,
    ),
    measures=(*ABRUPT, TRAVEL, *ASKED, BACKGROUND, BACKGROUND_DRIFT, FLICKER),
    expectations=(
        *(Wins("1x", "0x", measure.name) for measure in (*ABRUPT, *ASKED)),
        *(Wins("1x", "4x", measure.name) for measure in (TRAVEL, *ASKED)),
        *(Wins("1x", "1x-uncapped", measure.name, from_paper=False) for measure in (*ABRUPT, DIRECTION)),
    ),
    size=Size(num_prompts=12, num_seeds=2, num_frames=24, batch_size=12),
    bench=_mitigation_bench,
    model=MODEL,
    cpu_minutes=17,
    axis="scale of the mitigating gradient, as a multiple of 40",
    notes=(
        "The paper shows this in one example and by eye; it prints no numbers for the sweep. Its row [D] of Table 1, with"
        " and without the gradient, is in `harivo-table-1`.",
        "What pauses also pulses less: read travel beside it. The drawn videos say how far the sprites of these prompts"
        " should travel.",
        "The model recommends no gradient at all, which was decided on other prompts.",
    ),
)

CHANGES = (
    Measure("difference", "mean |after − before|", None, "", "mean over the denoising steps, the blue line of Fig. A1"),
    Measure("spread", "its standard deviation", None, "", "over the values of a video, the grey band of Fig. A1"),
    Measure("mean_shift", "mean, after − before", None, "", "the orange line of Fig. A1"),
    Measure("std_change", "standard deviation, after − before", None, "", "the green line of Fig. A1"),
    Measure(
        "steadiness",
        "mean |after − before|, less |change of the standard deviation|",
        None,
        "",
        "above 0: values change by more than their standard deviation does",
    ),
)

MAPPING_NOISE = Experiment(
    name="harivo-mapping-noise",
    title="HARIVO: what the mapping network does to the noise",
    source="HARIVO (arXiv:2410.07763), App. C and Fig. A1",
    claim=(
        "At all sampling steps the mapping network changes the noisy latents by a small but considerable amount; their"
        " standard deviation stays mostly as it was, and their mean rises a little at every step."
    ),
    setup=(
        f"{NAMED} makes each video from its caption; at every denoising step, all values of the noisy latents of a video"
        " are compared with what the mapping network makes of them."
    ),
    variants=(
        Variant("recommended", "recommended steps", {}),
        Variant("25-steps", "25 steps (the paper's)", {"num_inference_steps": 25}),
    ),
    measures=CHANGES,
    expectations=tuple(
        Rises(variant, measure)
        for variant in ("recommended", "25-steps")
        for measure in ("difference", "steadiness", "mean_shift")
    ),
    size=Size(num_prompts=8, num_seeds=1, num_frames=24, batch_size=8),
    bench=_mapping_bench,
    model=MODEL,
    cpu_minutes=2,
    curves={
        "difference": "mean |after − before|",
        "spread": "its standard deviation",
        "mean_shift": "mean, after − before",
        "std_change": "standard deviation, after − before",
    },
    curve_axis="denoising step",
    notes=(
        "The difference is above 0 for any mapping network that has learned anything: a new one changes nothing, bit for"
        " bit. What matters is its size, in the table; noisy latents have a standard deviation of about 1, unless the"
        " mitigating gradient overshoots in the first steps.",
        "The sign of the mean shift says little by itself: latents have no preferred sign.",
    ),
)

NORMALITY = Experiment(
    name="harivo-noise-normality",
    title="HARIVO: is the noise of a video Gaussian?",
    source="HARIVO (arXiv:2410.07763), App. B and Table A1",
    claim=(
        "Of 10,000 videos of noise that the frames partly share (PYoCo), 63.0 % pass the test of Jarque and Bera at 0.05,"
        " of random noise 94.4 %: correlated noise is not Gaussian, and the mapping network does without it."
    ),
    setup=(
        "All values of the noise of a video are one sample for the test, which is passed at p > 0.05. Noise has the shape"
        f" of the latents of `{MODEL}`, or of the model that the command below names. A prompt stands for 500 videos of"
        " noise, so 20 prompts are the paper's 10,000. Mixed noise of strength α is √(α² / (1 + α²)) times one frame that"
        " all share plus √(1 / (1 + α²)) times a frame of its own; progressive noise takes the frame before in the place of"
        " the shared one. Mapped noise is independent noise behind the mapping network of the model. All start from the"
        " same independent draws."
    ),
    variants=(
        Variant("independent", "independent", Noise("independent")),
        Variant("mixed-1", "mixed, α = 1", Noise("mixed", 1.0)),
        Variant("mixed-2", "mixed, α = 2", Noise("mixed", 2.0)),
        Variant("progressive-1", "progressive, α = 1", Noise("progressive", 1.0)),
        Variant("progressive-2", "progressive, α = 2", Noise("progressive", 2.0)),
        Variant("shared", "the same in all frames", Noise("shared")),
        Variant("mapped", "independent, behind the mapping network", Noise("mapped")),
    ),
    measures=(
        Measure("passes", "videos that pass", "higher", "%", "p > 0.05 for all values of a video together"),
        Measure("frames_pass", "single frames that pass", "higher", "%", "p > 0.05 for the values of one frame"),
        Measure(
            "correlation", "correlation of neighbours", None, "", "of the values of a frame with those of the next"
        ),
        Measure("mean", "mean", None),
        Measure("std", "standard deviation", None),
    ),
    expectations=(
        Wins("independent", "mixed-1", "passes"),
        *(
            Wins("independent", name, "passes", from_paper=False)
            for name in ("mixed-2", "progressive-1", "progressive-2", "shared")
        ),
        Wins("mapped", "mixed-1", "passes", from_paper=False),
    ),
    size=Size(num_prompts=20, num_seeds=1, num_frames=24, batch_size=1),
    bench=_normality_bench,
    model=MODEL,
    cpu_minutes=3,
    notes=(
        "The paper does not say which of PYoCo's two noises it took, how strong, and what one sample was. The share can be"
        " computed: with the correlations ρ of the frames, the statistic of a long sample is λ₃X + λ₄Y, with X and Y"
        " independent and χ² of one degree of freedom, and λ_k the mean over the frames of the sum of ρᵏ with all frames."
        " For 24 frames that gives 61.8 % for mixed noise of α = 1 (λ = 3.88, 2.44), 22.9 % for α = 2, 80.6 % and 47.2 %"
        " for progressive noise of α = 1 and 2, and 11.7 % for shared noise: the paper's 63 % is near mixed noise of α = 1.",
        "The test expects independent values, and that is what correlated noise fails here: each of its frames, and all of"
        " them together, are exactly Gaussian by construction, as the column of single frames shows.",
        "Mapped noise is no noise to start from: the scheduler never sees it, the frozen image model does.",
    ),
)
