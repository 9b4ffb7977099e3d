"""The table of experiments; one more is one more object here."""

from __future__ import annotations

from longvid.reproduce.art_v import MASK_STRENGTH, NOISE_AUGMENTATION
from longvid.reproduce.art_v_trained import ANCHOR, MASK
from longvid.reproduce.cross_method import HARIVO_WINDOWS, MITIGATED_ART_V, MITIGATED_STREAMING_T2V
from longvid.reproduce.experiment import Experiment
from longvid.reproduce.frame_tokens import STREAMING_TOKENS
from longvid.reproduce.harivo import MAPPING_NOISE, MG_SCALE, NORMALITY
from longvid.reproduce.harivo_trained import TABLE_1
from longvid.reproduce.streaming_t2v import APM, BLENDING, CONTEXT
from longvid.reproduce.streaming_t2v_trained import CAM

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        MASK,
        ANCHOR,
        NOISE_AUGMENTATION,
        MASK_STRENGTH,
        TABLE_1,
        MG_SCALE,
        MAPPING_NOISE,
        NORMALITY,
        CAM,
        APM,
        BLENDING,
        CONTEXT,
        MITIGATED_ART_V,
        MITIGATED_STREAMING_T2V,
        HARIVO_WINDOWS,
        STREAMING_TOKENS,
    )
}
"""What `longvid reproduce` knows, by name."""
