"""The experiment that gives StreamingT2V's chunks HARIVO's frame-wise tokens."""

from __future__ import annotations

from dataclasses import dataclass

from longvid.reproduce.experiment import Bench, Experiment, Setup, Size, Variant
from longvid.reproduce.streaming_t2v import DRAWN, MODEL, NAMED
from longvid.reproduce.verdicts import Wins
from longvid.reproduce.video_measures import (
    BACKGROUND_DRIFT,
    COLOR,
    COLOR_DRIFT,
    DIRECTION,
    FLICKER,
    JUMP,
    PRESENT,
    PULSING,
    SEAM,
    TRAVEL,
)

ALL_FRAMES = 1000.0
"""A smoothing, in frames, that leaves a chunk one set of tokens: their mean over its frames."""


@dataclass(frozen=True)
class Tokens:
    """Tokens that the frames of a chunk hear beside the text.

    Attributes:
        per_frame: How many each frame has.
        smoothing: As in `FrameTokenGenerator`; `ALL_FRAMES` gives all frames the same ones.
    """

    per_frame: int = 3
    smoothing: float = 0.0


def _bench(setup: Setup) -> Bench:
    from longvid.reproduce.frame_tokens_bench import FrameTokenBench

    return FrameTokenBench(setup)


COMPARED = (DIRECTION, SEAM, JUMP, BACKGROUND_DRIFT, COLOR)

STREAMING_TOKENS = Experiment(
    name="streaming-t2v-frame-tokens",
    title="HARIVO's frame-wise tokens in StreamingT2V",
    source="HARIVO (arXiv:2410.07763), Sec. 3.5 and Table 1 [C], in StreamingT2V (arXiv:2403.14773); no paper has tried it",
    claim=(
        "In HARIVO, tokens of its own tell every frame what it is to show, and bring the FVD from 1001.41 down to 922.67. If"
        " they do the same for the chunks of StreamingT2V, whose frames all hear the same text, more moves as asked, and"
        " less changes abruptly. If it is not a place in the chunk but only more text that helps, tokens that all frames"
        " share do as much."
    ),
    setup=(
        f"{NAMED} stays as it is. A new generator of three tokens per frame, made from the prompt, learns to lower its"
        " denoising loss on chunks that continue 8 frames; a second one of the same size, whose tokens are averaged over"
        " the 16 frames of a chunk, learns the same number of steps from the same clips in the same order. Every seed is"
        " a training of its own. Chunks behind the first then hear these tokens; the first chunk is the same in all rows,"
        " and so is the noise."
    ),
    variants=(
        Variant("without", "without tokens"),
        Variant("shared", "tokens that all frames share", Tokens(smoothing=ALL_FRAMES)),
        Variant("tokens", "tokens per frame", Tokens()),
        DRAWN,
    ),
    measures=(
        DIRECTION, SEAM, JUMP, BACKGROUND_DRIFT, COLOR_DRIFT, COLOR, PRESENT, PULSING, TRAVEL, FLICKER,
    ),
    expectations=(
        *(Wins("tokens", "without", measure.name, from_paper=False) for measure in COMPARED),
        *(Wins("tokens", "shared", measure.name, from_paper=False) for measure in COMPARED),
    ),
    size=Size(num_prompts=8, num_seeds=2, num_frames=64, batch_size=8, training_steps=200),
    bench=_bench,
    model=MODEL,
    cpu_minutes=36,
    notes=(
        "The generator's last layer starts at zero, so that a new token says nothing; it still takes its share of the"
        " attention, and the first steps of a training go into that.",
        "The model without tokens was not trained any further meanwhile. What more training of any kind is worth, the row"
        " of shared tokens shows.",
        "The tokens of the two seeds have learned to speak: on two captions they are 3.9 and 6.3 long, a word is 11.7; those"
        " of single frames are 3.3 and 3.6 from their mean. With CAM's learning rate, a tenth of theirs, they were 0.12 long.",
        "The text layers of a model at rest read the tokens with keys and values that know words alone; HARIVO trains its"
        " temporal layers meanwhile.",
        "The generators are trained for a short time on a CPU's budget. The interval is over prompts: with few trainings,"
        " the seeds' agreement says more about the luck of one.",
    ),
)  # fmt: skip
