"""The official checkpoint of StreamingT2V as a pipeline folder."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ..pipelines.streaming_t2v import StreamingT2VPipeline
from .streaming_t2v import released_networks, split_checkpoint

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""DDIM as in ModelScope's text-to-video model; the paper's Table 12 misprints it."""


def save_streaming_t2v(
    state_dict: Mapping[str, Tensor],
    folder: str | os.PathLike[str],
    *,
    tokenizer: CLIPTokenizer,
    dtype: torch.dtype = torch.float16,
    networks: Mapping[str, nn.Module] | None = None,
) -> None:
    """Write the official weights as a folder that `StreamingT2VPipeline.from_pretrained` loads.

    Args:
        state_dict: Weights under their official names, as `read_weights` gives them.
        folder: Where to write.
        tokenizer: The checkpoint holds none; that of `ali-vilab/text-to-video-ms-1.7b` belongs to it.
        dtype: Precision of the written weights. In half precision they take 6.4 GB.
        networks: The component of every part; None means the released model.

    Raises:
        ValueError: if weights are missing, unexpected or of a wrong shape.
    """
    networks = dict(released_networks() if networks is None else networks)
    for name, weights in split_checkpoint(state_dict, networks).items():
        networks[name].load_state_dict({key: value.to(dtype) for key, value in weights.items()}, assign=True)
    parts: dict = dict(networks)
    pipeline = StreamingT2VPipeline(**parts, tokenizer=tokenizer, scheduler=DDIMScheduler(**SCHEDULER))
    pipeline.save_pretrained(folder, safe_serialization=True)
