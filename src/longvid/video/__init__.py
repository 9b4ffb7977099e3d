"""The nouns of the domain: the video tensor, its windows, latents and files, and the state between two chunks."""

from longvid.video.codec import decode_video, encode_video, spatial_factor
from longvid.video.io import VideoReader, VideoWriter, read_video
from longvid.video.layout import check_video, fold_frames, unfold_frames
from longvid.video.sheet import contact_sheet
from longvid.video.state import StreamState, VideoChunk
from longvid.video.windows import Window, WindowPlan, fit_windows, plan_windows

__all__ = [
    "StreamState",
    "VideoChunk",
    "VideoReader",
    "VideoWriter",
    "Window",
    "WindowPlan",
    "check_video",
    "contact_sheet",
    "decode_video",
    "encode_video",
    "fit_windows",
    "fold_frames",
    "plan_windows",
    "read_video",
    "spatial_factor",
    "unfold_frames",
]
