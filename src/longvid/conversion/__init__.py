"""Official checkpoints as the components of longvid's pipelines: tensors in, tensors out."""

from .open_clip import convert_vision_weights
from .streaming_t2v import released_networks, rename_checkpoint, split_checkpoint

__all__ = ["convert_vision_weights", "released_networks", "rename_checkpoint", "split_checkpoint"]
