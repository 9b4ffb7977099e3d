"""Loads and pushes pipelines as a user would, against the hub named in HF_ENDPOINT; prints what came of each try.

It runs in a process of its own, because huggingface_hub reads its settings when it is imported.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import torch

from longvid import LongVideoPipeline
from longvid.pipelines.loading import LoadablePipeline


def load(*args, **kwargs) -> LoadablePipeline:
    return LongVideoPipeline.from_pretrained(*args, **kwargs)


def push(folder: str, repo: str, token: str) -> LoadablePipeline:
    pipe = load(folder)
    pipe.push_to_hub(repo, token=token)
    return load(repo, token=token)


def report(attempt) -> dict:
    start = time.monotonic()
    try:
        pipe = attempt()
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error), "seconds": time.monotonic() - start}
    weights = {str(part.dtype) for part in pipe.components.values() if isinstance(part, torch.nn.Module)}
    return {
        "class": type(pipe).__name__,
        "source": pipe.name_or_path,
        "dtypes": sorted(weights),
        "fingerprint": pipe.fingerprint(),
        "has_mask": pipe.components["mask_network"] is not None,
    }


def online(folder: str) -> dict:
    other = tempfile.mkdtemp()
    return {
        "by_id": lambda: load("toys/tiny"),
        "cached": lambda: load("toys/tiny", local_files_only=True),
        "variant": lambda: load("toys/tiny", variant="fp16", dtype=torch.float16),
        "override": lambda: load("toys/tiny", mask_network=None, cache_dir=tempfile.mkdtemp()),
        "device_map": lambda: load("toys/tiny", device_map="cpu"),
        "subfolder": lambda: load("toys/many", subfolder="inner"),
        "revision": lambda: load("toys/tiny", revision="older"),
        "token": lambda: load("toys/secret", token="hf_key"),
        "pushed": lambda: push(folder, "me/pushed", "hf_key"),
        "no_token": lambda: load("toys/secret", cache_dir=other),
        "no_repository": lambda: load("toys/nothing"),
        "no_revision": lambda: load("toys/tiny", revision="never"),
        "no_index": lambda: load("toys/many"),
        "no_subfolder": lambda: load("toys/many", subfolder="outer"),
        "no_variant": lambda: load("toys/tiny", variant="bf16"),
        "not_cached": lambda: load("toys/tiny", local_files_only=True, cache_dir=other),
        "truncated": lambda: load("toys/truncated"),
        "stock": lambda: load("toys/stock"),
    }


def offline(folder: str) -> dict:
    return {
        "cached": lambda: load("toys/tiny"),
        "not_cached": lambda: load("toys/other"),
        "folder": lambda: load(folder),
    }


def answers(attempts: dict) -> str:
    return json.dumps({name: report(attempt) for name, attempt in attempts.items()})


if __name__ == "__main__":
    print(answers(online(sys.argv[1])), flush=True)
    sys.stdin.readline()  # the hub is taken down meanwhile
    print(answers(offline(sys.argv[1])), flush=True)
