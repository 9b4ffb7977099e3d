"""Experiments on the bundled ART-V model that need no training: ART-V's Fig. 4 and Fig. 8 (b)."""

from __future__ import annotations

from longvid.reproduce.experiment import Bench, Experiment, Measure, Setup, Size, Variant
from longvid.reproduce.verdicts import Rises, Wins
from longvid.reproduce.video_measures import BACKGROUND_DRIFT, COLOR, COLOR_DRIFT, DIRECTION, DRIFT_MEASURES

CEILING = Variant("drawn", "drawn, through the model's autoencoder", reference=True)
COMPARED = (BACKGROUND_DRIFT, COLOR_DRIFT, COLOR, DIRECTION)
"""What an order of results is looked for in; the other measures are there to be seen."""


def _noise_bench(setup: Setup) -> Bench:
    from longvid.reproduce.art_v_bench import ARTVBench

    return ARTVBench(setup)


def _mask_bench(setup: Setup) -> Bench:
    from longvid.reproduce.art_v_bench import MaskBench

    return MaskBench(setup)


NOISE_AUGMENTATION = Experiment(
    name="art-v-noise-augmentation",
    title="ART-V: noise on the reference frames at test time",
    source="ART-V (arXiv:2311.18834), Sec. 4.2 and Fig. 8 (b)",
    claim=(
        "Noise on the reference frames brings significant boosts in FVD and IS over none; the gain in IS is marginal"
        " beyond level 100, and FVD is best at level 200, about the mean of the levels seen in training (0 to 550), and"
        " drops beyond it."
    ),
    setup=(
        "`longvid/art-v-tiny` makes each video from the drawn first frame and its caption, with its recommended settings"
        " except the level. Every level starts from the same noise. In the place of FVD and IS, the judge of the"
        " built-in world reads what drifted and what is still as asked."
    ),
    variants=(
        *(
            Variant(f"level-{level}", f"level {level}", {"noise_level": level}, x=level)
            for level in (0, 30, 100, 200, 350, 550)
        ),
        CEILING,
    ),
    measures=DRIFT_MEASURES,
    expectations=(
        *(Wins("level-200", "level-0", measure.name) for measure in COMPARED),
        *(Wins("level-200", "level-550", measure.name) for measure in COMPARED),
        *(Wins("level-100", "level-0", measure.name, from_paper=False) for measure in COMPARED),
    ),
    size=Size(num_prompts=12, num_seeds=2, num_frames=40),
    bench=_noise_bench,
    model="longvid/art-v-tiny",
    cpu_minutes=11,
    axis="noise level of the references at test time",
    notes=(
        "The bundled model was trained with levels from 0 to 200, not to 550: level 200 is the end of what it knows, 350"
        " and 550 lie beyond it. The mean of its training range, which the paper's 200 corresponds to, is 100: that"
        " comparison is our reading of the claim.",
        "The recommended level 30 was chosen on other prompts.",
        "A first look at 16 prompts, one seed, 20 frames and the levels 0, 30, 100 and 200 showed each attribute right in 94 to"
        " 100 % of the videos: too short to tell levels apart. Hence the 40 frames.",
    ),
)

STRENGTHS = (
    Measure(
        "first", "mask at the first step", None, "", "mean of the mask, over the frame and all frames but the first"
    ),
    Measure("last", "mask at the last step", None),
    Measure("rise", "last step − first step", "higher"),
    Measure("order", "rank correlation with the step", "higher", "", "1: it rises at every step"),
    Measure("background_rise", "last − first, on the background", "higher"),
    Measure("sprite_rise", "last − first, on the sprite", "higher"),
    Measure(
        "copies_background",
        "background − sprite",
        "higher",
        "",
        "mean over all steps; the judge says where the sprite is",
    ),
)

MASK_STRENGTH = Experiment(
    name="art-v-mask-strength",
    title="ART-V: strength of the mask against the denoising step",
    source="ART-V (arXiv:2311.18834), Sec. 3.2, Sec. 4.2 and Fig. 4",
    claim=(
        "The mean strength of the predicted mask increases with the denoising step: the model copies more from the"
        " reference in later steps, where high frequencies are made."
    ),
    setup=(
        "`longvid/art-v-tiny` makes each video from the drawn first frame and its caption; the mask of every evaluation"
        " of the networks is averaged over the frame, and over what the judge sees as background and as sprite. 1 copies"
        " from the reference frame, 0 takes what the network predicts."
    ),
    variants=(
        Variant("8-steps", "8 steps (recommended)", {"num_inference_steps": 8}),
        Variant("20-steps", "20 steps", {"num_inference_steps": 20}),
    ),
    measures=STRENGTHS,
    expectations=(
        Rises("8-steps", "rise"),
        Rises("8-steps", "order"),
        Rises("20-steps", "rise"),
        Rises("20-steps", "order"),
        Rises("8-steps", "copies_background"),
    ),
    size=Size(num_prompts=16, num_seeds=2, num_frames=9),
    bench=_mask_bench,
    model="longvid/art-v-tiny",
    curves={"everywhere": "whole frame", "background": "background", "sprite": "sprite"},
    curve_axis="denoising step",
    notes=(
        'The bundled model mixes in the static noise that is exact for a still image (`static_noise="scaled"`), not'
        " the difference of Sec. 3.2, and was trained with it.",
        "With it, what a copied place is wrong by is (signal / noise) × (frame − reference), which grows without bound as"
        " the noise goes: in the last steps copying is right only where nothing at all has changed. This may be why the"
        " mask falls here; a model trained with the paper's static noise could tell.",
        "That the mask copies the background rather than what moves is what the paper shows in Fig. 9.",
    ),
)
