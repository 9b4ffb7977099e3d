"""Short hashes that say whether two pipelines compute the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

_NOT_CONFIG = {"dtype", "torch_dtype", "transformers_version", "architectures"}


def fingerprint_of(component: Any) -> str:
    """Sixteen hex digits of SHA-256 over a component's class, configuration and state.

    A module's state is the name, dtype, shape and bytes of every tensor of its `state_dict()`, so equal weights in
    another dtype give another fingerprint while the device and the file they came from do not matter. A tokenizer's is
    its vocabulary, added tokens and rules. Paths, library versions and other notes in a configuration (names with a
    leading underscore) are left out. `"none"` stands for a component that is None.

    Raises:
        ValueError: if a module has tensors on the meta device and nobody keeps their values.
    """
    if component is None:
        return "none"
    parts = [hash_settings(type(component).__name__, _config(component)).encode()]
    if isinstance(component, torch.nn.Module):
        state = component.state_dict()
        tensors = ((name, _in_memory(component, name, state[name])) for name in sorted(state))
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
            parts += pool.map(_hash_tensor, tensors)
    elif hasattr(component, "get_vocab"):
        parts.append(_tokenizer_rules(component).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def hash_settings(name: str, settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits of SHA-256 over a class name and its settings, without notes such as paths and versions."""
    text = json.dumps([name, _plain(settings)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hash_tensor(named: tuple[str, Tensor]) -> bytes:
    name, tensor = named
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _in_memory(module: torch.nn.Module, name: str, tensor: Tensor) -> Tensor:
    """The tensor itself, or where accelerate keeps it while it is offloaded."""
    if not tensor.is_meta:
        return tensor
    path, _, leaf = name.rpartition(".")
    hook = getattr(module.get_submodule(path), "_hf_hook", None)
    for candidate in (hook, *getattr(hook, "hooks", ())):
        weights = getattr(candidate, "weights_map", None)
        if weights is not None:
            return weights[leaf]
    raise ValueError(f"cannot fingerprint {type(module).__name__}: {name!r} is on the meta device, without weights")


def _tokenizer_rules(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.update(truncation=None, padding=None)  # set anew by every call
        return json.dumps(rules, sort_keys=True)
    return json.dumps(tokenizer.get_vocab(), sort_keys=True)


def _config(component: Any) -> Mapping:
    config: Any = getattr(component, "config", None)
    if hasattr(config, "to_dict"):
        return config.to_dict()
    if isinstance(config, Mapping):
        return config
    if hasattr(component, "model_max_length"):
        return {"model_max_length": component.model_max_length}
    return component.to_dict() if hasattr(component, "to_dict") else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): _plain(entry)
            for key, entry in value.items()
            if not str(key).startswith("_") and key not in _NOT_CONFIG
        }
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
