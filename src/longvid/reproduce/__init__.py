"""The papers' ablations on the built-in world, one object each: what is compared, what is measured, what is expected."""

from longvid.reproduce.experiment import Bench, Expectation, Experiment, Measure, Measured, Setup, Size, Variant
from longvid.reproduce.registry import EXPERIMENTS
from longvid.reproduce.run import reproduce
from longvid.reproduce.statistics import Interval, mean_interval, paired_difference
from longvid.reproduce.verdicts import Rises, Verdict, Wins

__all__ = [
    "EXPERIMENTS",
    "Bench",
    "Expectation",
    "Experiment",
    "Interval",
    "Measure",
    "Measured",
    "Rises",
    "Setup",
    "Size",
    "Variant",
    "Verdict",
    "Wins",
    "mean_interval",
    "paired_difference",
    "reproduce",
]
