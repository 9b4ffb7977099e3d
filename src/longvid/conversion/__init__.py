"""Official checkpoints as the components of longvid's pipelines: files in, folders out."""

from .files import read_weights
from .open_clip import convert_vision_weights
from .pipeline import save_streaming_t2v
from .streaming_t2v import released_networks, rename_checkpoint, split_checkpoint

__all__ = [
    "convert_vision_weights",
    "read_weights",
    "released_networks",
    "rename_checkpoint",
    "save_streaming_t2v",
    "split_checkpoint",
]
