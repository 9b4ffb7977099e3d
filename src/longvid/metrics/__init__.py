"""What a made video is worth: metrics that read it once, frame by frame, in memory that does not grow with its length."""

from longvid.metrics.base import METRICS, Metric, MetricResult, MissingWeights, make_metric, metric_class

METRICS.update({
    "scuts": "longvid.metrics.scene_cuts:SceneCuts",
    "clip-score": "longvid.metrics.clip_scores:CLIPTextScore",
    "clip-consistency": "longvid.metrics.clip_scores:CLIPFrameConsistency",
    "aesthetic": "longvid.metrics.aesthetic:AestheticScore",
    "lpips": "longvid.metrics.lpips:LPIPSToFirst",
    "lpips-previous": "longvid.metrics.lpips:LPIPSToPrevious",
    "re-id": "longvid.metrics.reidentification:ReIdentification",
    "fvd": "longvid.metrics.fvd:FVD",
    "is": "longvid.metrics.inception_score:InceptionScore",
})  # fmt: skip

__all__ = ["METRICS", "Metric", "MetricResult", "MissingWeights", "make_metric", "metric_class"]
