"""Where a model's folder is: among the bundled models, on this machine, or on a model hub; and why it cannot be had."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import bundled

_HUB_ID = re.compile(r"[\w][\w.\-]*/[\w][\w.\-]*", re.ASCII)
_OFFLINE_HELP = (
    "offline, use a bundled model, a local folder, or a model that is in the hub cache already"
    " (local_files_only=True or HF_HUB_OFFLINE=1)"
)


def local_source(name: str) -> Path | None:
    """The folder of a bundled or local model, or None if `name` is a hub id.

    `longvid/...` always means a bundled model; write `./longvid/...` for a local folder of that name. An existing
    folder comes before a hub id.

    Raises:
        ValueError: if `name` is none of these, with the nearest names.
    """
    models = bundled.bundled_models()
    if name in models:
        return models[name]
    path = Path(name).expanduser()
    if name.startswith(bundled.PREFIX):
        raise ValueError(f"no bundled model is called {name!r}{_nearest(name)}; {_bundled_names()}")
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{name!r} is a file; expected a pipeline folder (one with a {bundled.INDEX})")
    if _HUB_ID.fullmatch(name):
        return None
    raise ValueError(
        f"unknown model {name!r}: no such folder, no bundled model and not a hub id (owner/name){_nearest(name)};"
        f" {_bundled_names()}"
    )


def read_index(folder: Path, name: str) -> dict:
    """The model_index.json of a pipeline folder.

    Raises:
        ValueError: if there is none (naming folders below that have one), or it is damaged.
    """
    if (folder / bundled.INDEX).is_file():
        return bundled.read_json(folder / bundled.INDEX)
    below = sorted(index.parent.name for index in folder.glob(f"*/{bundled.INDEX}"))
    help_ = f"; pass subfolder= for one of {', '.join(below)}" if below else ""
    label = repr(name) if folder == Path(name) else f"{name!r} ({folder})"
    raise ValueError(f"{label} is not a pipeline folder: it has no {bundled.INDEX}{help_}")


def model_index(name: str) -> dict:
    """The model_index.json of a bundled or local model or one on the hub.

    Raises:
        ValueError: as `local_source`, `read_index` and `hub_index`.
    """
    folder = local_source(name)
    return hub_index(name) if folder is None else read_index(folder, name)


def hub_index(repo: str, **options: Any) -> dict:
    """The model_index.json of a pipeline on the hub; `options` as `hf_hub_download` takes them.

    Raises:
        ValueError: if the hub or the cache does not give it, with the reason.
    """
    from huggingface_hub import hf_hub_download, model_info

    with hub_errors(repo):
        try:
            if not options.get("local_files_only"):  # one question, while hf_hub_download tries for half a minute
                model_info(repo, revision=options.get("revision"), token=options.get("token"))
        except Exception as error:
            if not _no_answer(error):
                raise
            options["local_files_only"] = True
            return bundled.read_json(Path(hf_hub_download(repo, bundled.INDEX, **options)))
        return bundled.read_json(Path(hf_hub_download(repo, bundled.INDEX, **options)))


def hub_subfolder(repo: str, subfolder: str, **options: Any) -> Path:
    """Download one folder of a hub repository and give its place in the cache.

    Raises:
        ValueError: if the hub or the cache does not give it, with the reason.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repo):
        folder = Path(snapshot_download(repo, allow_patterns=[f"{subfolder.strip('/')}/*"], **options), subfolder)
    if not folder.is_dir():
        raise ValueError(f"the hub's {repo!r} has no folder {subfolder!r}")
    return folder


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn what a hub client raises into a ValueError of one line that says what to do."""
    try:
        yield
    except Exception as error:
        reason = _hub_reason(repo, error)
        if reason is None:
            raise
        raise ValueError(reason) from error


def _hub_reason(repo: str, error: Exception) -> str | None:
    from huggingface_hub import errors

    chain = list(_chain(error))

    def found(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    unknown = f"unknown model {repo!r}: no bundled model, no local folder, and"
    if found(errors.GatedRepoError):
        return f"the hub's {repo!r} is gated: ask its owners for access, then pass token= or log in (hf auth login)"
    if found(errors.RepositoryNotFoundError):
        private = "(or it is private: pass token= or log in with `hf auth login`)"
        return f"{unknown} the hub has no such repository {private}{_nearest(repo)}; {_bundled_names()}"
    if found(errors.RevisionNotFoundError):
        return f"the hub's {repo!r} has no such revision (branch, tag or commit)"
    if found(errors.RemoteEntryNotFoundError):
        return f"the hub's {repo!r} is not a pipeline repository: it has no {bundled.INDEX}{_nearest(repo)}"
    if found(errors.OfflineModeIsEnabled):
        return f"{unknown} the hub may not be asked (HF_HUB_OFFLINE){_nearest(repo)}; {_OFFLINE_HELP}"
    if any(_no_connection(link) for link in chain):
        return f"{unknown} the hub cannot be reached{_nearest(repo)}; {_OFFLINE_HELP}"
    if found(errors.HfHubHTTPError):
        refusal = next(link for link in chain if isinstance(link, errors.HfHubHTTPError))
        return f"the hub gave no answer for {repo!r}: {str(refusal).splitlines()[0]}"
    if found(errors.LocalEntryNotFoundError, errors.CachedRepoTreeNotFoundError):
        return f"{unknown} the hub cache does not hold it{_nearest(repo)}; {_OFFLINE_HELP}"
    return None


def _no_answer(error: Exception) -> bool:
    """Whether the hub said nothing about the question: there is no connection, or it is in trouble itself."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    response = error.response if isinstance(error, HfHubHTTPError) else None
    down = response is not None and response.status_code >= 500
    return down or isinstance(error, OfflineModeIsEnabled) or _no_connection(error)


def _no_connection(error: BaseException) -> bool:
    transport = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")
    return isinstance(error, (ConnectionError, TimeoutError)) or (
        transport and type(error).__name__ != "HTTPStatusError"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _nearest(name: str) -> str:
    """`; did you mean ...?` over the bundled names and the pipeline folders near the path, or nothing."""
    path = Path(name).expanduser()
    parents = {Path(), path.parent} if path.parent.is_dir() else {Path()}
    folders = [
        os.path.relpath(folder) if not path.is_absolute() else str(folder)
        for parent in sorted(parents)
        for folder in sorted(parent.iterdir())
        if (folder / bundled.INDEX).is_file()
    ]
    spellings = {known.lower(): known for known in folders}
    for known in bundled.bundled_models():  # with and without "longvid/"
        spellings |= {known.lower(): known, known.removeprefix(bundled.PREFIX).lower(): known}
    wanted = os.path.normpath(name).lower()
    matches = difflib.get_close_matches(wanted, spellings, n=3, cutoff=0.6)
    nearest = list(dict.fromkeys(spellings[match] for match in matches))
    return f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""


def _bundled_names() -> str:
    return f"bundled models: {', '.join(bundled.bundled_models()) or 'none'}"
