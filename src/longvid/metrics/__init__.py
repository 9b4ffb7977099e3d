"""What a made video is worth: metrics that read it once, frame by frame, in memory that does not grow with its length."""

from longvid.metrics.base import METRICS, Metric, MetricResult, MissingWeights, make_metric
from longvid.metrics.curves import start_end_contrast
from longvid.metrics.evaluate import VideoReport, evaluate_video
from longvid.metrics.flow import DISFlow, Flow, RAFTFlow, make_flow

__all__ = [
    "METRICS",
    "DISFlow",
    "Flow",
    "Metric",
    "MetricResult",
    "MissingWeights",
    "RAFTFlow",
    "VideoReport",
    "evaluate_video",
    "make_flow",
    "make_metric",
    "start_end_contrast",
]
