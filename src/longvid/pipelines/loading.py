"""Pipelines that load by bundled name, folder or hub id, save in full, and say what they are made of."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import longvid
from longvid import bundled
from longvid.pipelines.damage import find_damage
from longvid.pipelines.fingerprint import fingerprint_of, hash_settings
from longvid.pipelines.sources import hub_errors, hub_index, hub_subfolder, local_source, read_index

# With this entry model_index.json says ["longvid", "AnchoredUNet"], and diffusers imports longvid to resolve it.
# Without it the index would hold a module path, which diffusers neither imports nor accepts from a hub.
LOADABLE_CLASSES.setdefault("longvid", {})

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
_NOTES = ("_class_name", "_diffusers_version", "_name_or_path")


class LoadablePipeline(DiffusionPipeline):
    """A diffusers pipeline whose base class loads every subclass of it.

    A subclass spells out its components in `__init__` and is found by the class name in `model_index.json`. Its
    constants must not be lists: diffusers takes a list in `model_index.json` for a component.
    """

    _known: ClassVar[dict[str, type[LoadablePipeline]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        LoadablePipeline._known[cls.__name__] = cls

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Load a pipeline; on a base class such as `LongVideoPipeline`, the subclass that `model_index.json` names.

        Args:
            pretrained_model_name_or_path: A bundled name (`"longvid/art-v-tiny"`), a folder, or a hub id.
            kwargs: Components that replace the stored ones, constants of the pipeline, and diffusers' own options:
                `dtype` (one for all, or a dict with one per component; float32 unless given; `torch_dtype` is another
                name for it), `variant`, `device_map`, `subfolder` (a pipeline folder inside the model), `revision`,
                `token`, `cache_dir`, `local_files_only`, `force_download`, `use_safetensors` and so on.

        Raises:
            ValueError: if there is no such model (with the nearest names), the hub or its cache cannot give it, it is
                another kind of pipeline, a file of it is damaged or missing, or `dtype` and `torch_dtype` disagree.
        """
        name = os.fspath(pretrained_model_name_or_path)
        kwargs["dtype"] = one_dtype(kwargs.get("dtype"), kwargs.pop("torch_dtype", None)) or torch.float32
        hub = {option: kwargs[option] for option in _HUB_OPTIONS if kwargs.get(option) is not None}
        subfolder = kwargs.pop("subfolder", None)
        folder = local_source(name)
        if subfolder:
            folder = hub_subfolder(name, subfolder, **hub) if folder is None else folder / subfolder
        index = hub_index(name, **hub) if folder is None else read_index(folder, name)
        target = cls._class_for(index, name, kwargs)
        if target is not cls:
            return target.from_pretrained(name, subfolder=subfolder, **kwargs)
        if folder is None:
            with hub_errors(name):
                folder = Path(cls.download(name, **{option: kwargs[option] for option in kwargs if option != "dtype"}))
        pipeline = cls._load_folder(folder, name, kwargs)
        pipeline.register_to_config(_name_or_path=f"{name}/{subfolder}" if subfolder else name)
        return pipeline

    @classmethod
    def _load_folder(cls, folder: Path, name: str, kwargs: dict[str, Any]) -> Self:
        with bundled.complete_folder(folder) as complete:
            try:
                pipeline = super().from_pretrained(str(complete), **kwargs)
            except Exception as error:
                damage = find_damage(folder, ignored=kwargs)
                if damage is None and not isinstance(error, OSError):
                    raise
                raise ValueError(f"cannot load {name!r}: {damage or str(error).splitlines()[0]}") from error
        for part, component in pipeline.components.items():
            if part in kwargs or component is None:
                continue
            if kwargs.get("device_map") is None:
                _check_complete(component, f"{name!r}: {part}")
            if complete != folder:
                _note_source(component, f"{name}/{part}")
        return pipeline

    @classmethod
    def _class_for(cls, index: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> type[Self]:
        """The class to load a model with: this one if it names components, else the subclass that the index names."""
        found = index.get("_class_name", "pipeline of no known class")
        found = str(found[-1] if isinstance(found, (list, tuple)) else found)
        target = _class_called(found)
        problem = ""
        if cls._is_base():
            if target is not None and issubclass(target, cls):
                return target
        elif target is None or issubclass(target, cls) or issubclass(cls, target):  # a stock folder may hold all parts
            held = {*given, *cls._optional_components, *(part for part in index if isinstance(index[part], list))}
            lacking = [part for part in cls._get_signature_keys(cls)[0] if part not in held]
            if not lacking:
                return cls
            problem = f" without the {', '.join(lacking)} of a {cls.__name__}"
        elif not target._is_base():
            problem = f", not a {cls.__name__}"
        raise ValueError(f"{name!r} is a {found}{problem}; longvid provides {', '.join(_provided())}")

    @classmethod
    def _is_base(cls) -> bool:
        """Whether this class spells out no components, so that only its subclasses can be built."""
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return all(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """Build this pipeline from the components and constants of another one, without copying weights.

        Every component keeps its dtype. With `dtype` (or `torch_dtype`) all are cast, and as they are the same modules,
        the other pipeline's too. A component fits if it is an instance of the annotated type; `kwargs` replace
        components and constants. Constants that this class does not have are kept as notes, for the way back.

        Raises:
            ValueError: if a component is missing, or of another type than this pipeline needs.
        """
        dtype = one_dtype(kwargs.pop("dtype", None), kwargs.pop("torch_dtype", None))
        expected, options = cls._get_signature_keys(cls)
        config = {key: value for key, value in pipeline.config.items() if key not in _NOTES}
        for part, component in pipeline.components.items():
            if part in expected and part not in kwargs and cls._accepts(part, component, pipeline):
                kwargs[part] = component
        for key in options:
            if key not in kwargs and (key in config or f"_{key}" in config):
                kwargs[key] = config.pop(key) if key in config else config.pop(f"_{key}")
        lacking = [part for part in expected if part not in kwargs and part not in cls._optional_components]
        if lacking:
            raise ValueError(f"the {type(pipeline).__name__} has no {', '.join(lacking)} for a {cls.__name__}")
        built = cls(**kwargs)
        notes = {key if key.startswith("_") else f"_{key}": value for key, value in config.items() if key not in kwargs}
        source = pipeline.config.get("_name_or_path")
        built.register_to_config(**notes, **({} if source is None else {"_name_or_path": source}))
        return built if dtype is None else built.to(dtype=dtype)

    @classmethod
    def _accepts(cls, part: str, component: Any, source: DiffusionPipeline) -> bool:
        annotated = [kind for kind in cls._get_signature_types()[part] if isinstance(kind, type)]
        classes = tuple(kind for kind in annotated if kind is not inspect.Signature.empty)
        if not isinstance(component, torch.nn.Module) or not classes or isinstance(component, classes):
            return True
        if part not in cls._optional_components:
            wanted, found = " or ".join(kind.__name__ for kind in classes), type(component).__name__
            raise ValueError(
                f"{cls.__name__} needs a {wanted} as {part!r}, but the {type(source).__name__} has a {found};"
                f" pass {part}="
            )
        return False

    def fingerprint(self) -> dict[str, str]:
        """What makes this pipeline what it is: component name -> short hash of its configuration and weights.

        The same on any device and wherever it was loaded from; different for other weights, another dtype, scheduler or
        constant (`"pipeline"` stands for the constants, without the recommended `call_defaults`). It reads every
        weight, so keep the result; `fingerprint.fingerprint_of` says exactly what is hashed.
        """
        constants = {key: value for key, value in self.parameters.items() if key != "call_defaults"}
        own = {"pipeline": hash_settings(type(self).__name__, constants)}
        return own | {name: fingerprint_of(component) for name, component in sorted(self.components.items())}


def one_dtype(dtype: Any, torch_dtype: Any = None) -> torch.dtype | dict[str, torch.dtype] | None:
    """Join `dtype` and its older name `torch_dtype`; names such as "bfloat16" become dtypes, None stays None.

    Raises:
        ValueError: if both are given, or one is no floating point dtype.
    """
    if dtype is not None and torch_dtype is not None:
        raise ValueError(f"pass dtype or torch_dtype, not both; got dtype={dtype}, torch_dtype={torch_dtype}")
    chosen = dtype if dtype is not None else torch_dtype
    if isinstance(chosen, Mapping):
        return {part: _as_dtype(entry) for part, entry in chosen.items()}
    return None if chosen is None else _as_dtype(chosen)


def _as_dtype(value: Any) -> torch.dtype:
    found: Any = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    raise ValueError(f"dtype must be a floating point dtype such as torch.float32 or torch.bfloat16; got {value!r}")


def _class_called(name: str) -> type[LoadablePipeline] | None:
    found = getattr(longvid, name, None) if name in longvid._HOMES else LoadablePipeline._known.get(name)
    return found if isinstance(found, type) and issubclass(found, LoadablePipeline) else None


def _provided() -> list[str]:
    known = {name: _class_called(name) for name in {*longvid._HOMES, *LoadablePipeline._known}}
    return sorted(name for name, found in known.items() if found is not None and not found._is_base())


def _check_complete(component: Any, label: str) -> None:
    state = component.state_dict() if isinstance(component, torch.nn.Module) else {}
    missing = [key for key, tensor in state.items() if tensor.is_meta]
    if missing:
        lack = f"lacks {len(missing)} of {len(state)} tensors, e.g. {missing[0]}"
        raise ValueError(f"cannot load {label}: its file {lack}")


def _note_source(component: Any, source: str) -> None:
    """Name the model a component came from, where loading has noted a temporary folder."""
    if "_name_or_path" in getattr(component, "_internal_dict", {}):
        component.register_to_config(_name_or_path=source)
    owners: tuple[Any, ...] = (component, getattr(component, "config", None))
    for owner in owners:
        if isinstance(getattr(owner, "name_or_path", None), str):
            owner.name_or_path = source
