"""What a made video is worth: metrics that read it once, frame by frame, in memory that does not grow with its length."""

from longvid.metrics.base import METRICS, Metric, MetricResult, MissingWeights, make_metric, metric_class

__all__ = ["METRICS", "Metric", "MetricResult", "MissingWeights", "make_metric", "metric_class"]
