"""Short hashes that say whether two pipelines compute the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

_NOT_CONFIG = {"dtype", "torch_dtype", "transformers_version", "architectures"}
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint_of(component: Any) -> str:
    """Sixteen hex digits of SHA-256 over a component's class, configuration and state.

    A module's state is the name, dtype, shape and bytes of every tensor of its `state_dict()`, so equal weights in
    another dtype give another fingerprint while the device and the file they came from do not matter. Where adapters
    are loaded, `adapter_state` belongs to it. A tokenizer's is its vocabulary, added tokens and rules. Paths, library
    versions and other notes in a configuration (names with a leading underscore) are left out. `"none"` stands for a
    component that is None.

    Raises:
        ValueError: if a module has tensors on the meta device and nobody keeps their values.
    """
    if component is None:
        return "none"
    parts = [hash_settings(type(component).__name__, _config(component)).encode()]
    if isinstance(component, torch.nn.Module):
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
            parts += pool.map(_hash_tensor, _tensors(component))
        if adapters := adapter_state(component):  # nothing is added without: those fingerprints are in old run folders
            parts.append(json.dumps(adapters, default=str).encode())
    elif hasattr(component, "get_vocab"):
        parts.append(_tokenizer_rules(component).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def hash_settings(name: str, settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits of SHA-256 over a class name and its settings, without notes such as paths and versions."""
    text = json.dumps([name, _plain(settings)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp_of(component: Any) -> Hashable:
    """Describe a component so that the description changes whenever its fingerprint does, for much less work.

    Of a module it holds the configuration, the adapters, and every tensor's name, dtype, shape and sum of bits, summed
    where it lies; so it also sees what is written through `.data`, which torch does not count. It reads every weight
    once, at the speed of the memory (a few GB per second for a core of a CPU, some TB per second on a GPU, which is
    waited for once), where the fingerprint copies weights to the host and hashes them. Of a tokenizer it holds which
    object it is, and the tokens added to it.

    Raises:
        ValueError: as `fingerprint_of`.
    """
    if component is None:
        return None
    settings = hash_settings(type(component).__name__, _config(component))
    if isinstance(component, torch.nn.Module):
        tensors = _tensors(component)
        kinds = tuple((name, tensor.dtype, tensor.shape) for name, tensor in tensors)
        versions = sum(0 if tensor.is_inference() else tensor._version for _, tensor in tensors)  # sees reordering too
        adapters = json.dumps(adapter_state(component), default=str)
        return id(component), settings, adapters, kinds, versions, _sums_of_bits([tensor for _, tensor in tensors])
    added = json.dumps(component.get_added_vocab(), sort_keys=True) if hasattr(component, "get_added_vocab") else None
    return id(component), settings, added


def adapter_state(module: torch.nn.Module) -> list[tuple[Any, ...]]:
    """What changes how a module computes, apart from its weights and its configuration; empty for most.

    Of every layer with LoRA or another adapter of peft: which are active, switched off and fused, and their scaling. Of
    every attention whose processor has a scale, as an IP-Adapter's: that. Of every block that FreeU acts on: its factors.
    """
    found: list[tuple[Any, ...]] = []
    for name, part in module.named_modules():
        if hasattr(part, "merged_adapters"):  # a layer of peft, which need not be installed
            scaling = sorted(getattr(part, "scaling", {}).items())
            active, fused = list(part.active_adapters), list(part.merged_adapters)  # type: ignore[arg-type]
            found.append((name, active, part.disable_adapters, fused, scaling))
        scale = getattr(getattr(part, "processor", None), "scale", None)
        if scale is not None:
            found.append((name, scale))
        factors = [getattr(part, factor, None) for factor in ("s1", "s2", "b1", "b2")]
        if any(factor is not None for factor in factors):
            found.append((name, "FreeU", *factors))
    return found


def _tensors(module: torch.nn.Module) -> list[tuple[str, Tensor]]:
    state = module.state_dict()
    return [(name, _in_memory(module, name, state[name])) for name in sorted(state)]


def _sums_of_bits(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Sum the bits of every tensor as whole numbers that wrap around, waiting for every device once."""
    sums: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        sums.setdefault(tensor.device, []).append(_sum_of_bits(tensor.detach()))
    return tuple(tuple(torch.stack(each).tolist()) for each in sums.values())


def _sum_of_bits(tensor: Tensor) -> Tensor:
    in_memory_order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    flat = tensor.permute(in_memory_order).reshape(-1)  # no copy, also with the channels last
    size = flat.element_size()
    words = not (flat.numel() * size % 8 or flat.storage_offset() * size % 8)
    return flat.view(torch.int64 if words else _INTEGERS[size]).sum(dtype=torch.int64)  # words need no conversion


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
