"""Let a model extend the constructor of a diffusers model without repeating its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Init = TypeVar("Init", bound=Callable[..., None])


def extends_arguments_of(base: type[Any]) -> Callable[[Init], Init]:
    """Put the constructor arguments of `base` into the signature of an `__init__(self, *args, new=..., **kwargs)`.

    diffusers reads a model's configuration keys from the signature of its constructor: `register_to_config` to
    record them, `from_config` to choose what to pass. The decorated constructor keeps its short definition, forwards
    `*args` and `**kwargs` to `base`, and is seen from outside with every argument of `base` followed by its own
    keyword-only ones. Use it below `@register_to_config`.
    """
    inherited = [p for p in inspect.signature(base.__init__).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]

    def decorate(init: Init) -> Init:
        own = [p for p in inspect.signature(init).parameters.values() if p.kind is p.KEYWORD_ONLY]
        init.__signature__ = inspect.Signature([*inherited, *own])  # type: ignore[attr-defined]
        return init

    return decorate
