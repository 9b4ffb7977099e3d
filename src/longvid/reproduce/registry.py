"""The table of experiments; one more is one more object here."""

from __future__ import annotations

from longvid.reproduce.art_v import MASK_STRENGTH, NOISE_AUGMENTATION
from longvid.reproduce.art_v_trained import ANCHOR, MASK
from longvid.reproduce.cross_method import MITIGATED_ART_V
from longvid.reproduce.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (MASK, ANCHOR, NOISE_AUGMENTATION, MASK_STRENGTH, MITIGATED_ART_V)
}
"""What `longvid reproduce` knows, by name."""
