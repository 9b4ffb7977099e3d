"""The sampler of a run, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from longvid.cli.parser import nearest


def make_scheduler(current: Any, name: str | None, options: Mapping[str, Any]) -> Any:
    """The scheduler `name` on the noise schedule of `current`, with changes to its config.

    Args:
        current: The scheduler that the model brings.
        name: A diffusers class or longvid's own, in any spelling: `DDIMScheduler`, `ddim`, `euler-ancestral`; None
            keeps the class of `current`.
        options: Values of its config.

    Raises:
        ValueError: for a class or an option that does not exist, or a class that cannot drive these models.
    """
    kind = type(current) if name is None else _find(name)
    known = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "kwargs")]
    for key in options:
        if key not in known:
            raise ValueError(f"{kind.__name__} has no option {key!r}{nearest(key, known)}")
    scheduler = kind.from_config(current.config, **options)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{kind.__name__} has another kind of noise schedule than this model was trained with")
    return scheduler


def _find(name: str) -> Any:
    import diffusers

    import longvid

    classes = {word: word for word in dir(diffusers) if word.endswith("Scheduler") and not word.startswith("Flax")}
    classes["DPMPP2SAncestralScheduler"] = "DPMPP2SAncestralScheduler"
    by_spelling = {_spelling(word): word for word in classes}
    found = by_spelling.get(_spelling(name))
    if found is None:
        raise ValueError(f"unknown scheduler {name!r}{nearest(name, classes) or nearest(_spelling(name), by_spelling)}")
    return getattr(longvid, found) if found in longvid._HOMES else getattr(diffusers, found)


def _spelling(name: str) -> str:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain.removesuffix("discrete").removesuffix("scheduler").removesuffix("discrete")
