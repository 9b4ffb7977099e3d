"""The layer rule of the house: who may know whom. Reads the sources, so it also sees imports inside functions."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import longvid

ROOT = Path(longvid.__file__).parent
MAY_IMPORT = {
    "video": set(),
    "bundled": set(),
    "modules": {"video"},
    "samplers": {"video"},
    "metrics": {"bundled", "conversion", "video"},  # conversion: the one place that opens a pickle
    "sprites": {"video"},
    "pipelines": {"bundled", "modules", "samplers", "video"},
    "conversion": {"pipelines", "bundled", "modules", "samplers", "video"},
    "runs": {"metrics", "pipelines", "video"},
    "training": {"pipelines", "sprites", "bundled", "modules", "samplers", "video"},
    "reproduce": {"training", "pipelines", "metrics", "sprites", "bundled", "modules", "samplers", "video"},
}
EVERY_ROOM = {*MAY_IMPORT, "cli"}
MAY_IMPORT["cli"] = EVERY_ROOM
METHODS = {"art_v", "enhance", "harivo", "streaming_t2v"}
NOT_IN_VIDEO = {"diffusers", "transformers", "accelerate"}


def imports_of(path):
    """Dotted names that a file imports, anywhere in it, relative ones resolved: (line, name)."""
    package = ["longvid", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def broken_rules(path):
    room, module = path.relative_to(ROOT).parts[0], path.stem
    for line, name in imports_of(path):
        top, target, *rest = [*name.split("."), "", ""]
        where = f"{path.relative_to(ROOT.parent)}:{line}"
        if room == "video" and top in NOT_IN_VIDEO:
            yield f"{where} video must not import {top}"
        if top != "longvid" or target in {"", "__version__"}:
            continue
        if target in EVERY_ROOM and target not in {room} | MAY_IMPORT[room]:
            yield f"{where} {room} must not import {target}"
        if target not in EVERY_ROOM and room != "cli":
            yield f"{where} import {target} from the module that defines it, not from longvid"
        if target == room and module in METHODS and rest[0] in METHODS - {module}:
            yield f"{where} {module} must not import {rest[0]}: what methods share lies in base"


@pytest.mark.parametrize(
    ("file", "line", "verdict"),
    [
        ("modules/a.py", "from longvid.video.layout import fold_frames", None),
        ("modules/a.py", "def f():\n    from ..samplers import guidance", "modules must not import samplers"),
        ("samplers/a.py", "from longvid import ARTVPipeline", "from the module that defines it"),
        ("video/a.py", "import diffusers.models", "video must not import diffusers"),
        ("pipelines/art_v.py", "from .harivo import x", "art_v must not import harivo"),
        ("pipelines/art_v.py", "from .base import LongVideoPipeline", None),
        ("cli/a.py", "from longvid import bundled, training", None),
    ],
)
def test_the_rule_finds_what_it_forbids(file, line, verdict, tmp_path, monkeypatch):
    path = tmp_path / "longvid" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    monkeypatch.setitem(globals(), "ROOT", tmp_path / "longvid")
    found = " ".join(broken_rules(path))
    assert (verdict in found) if verdict else not found


@pytest.mark.parametrize("room", sorted(EVERY_ROOM))
def test_a_room_imports_only_rooms_to_its_right(room):
    broken = [rule for path in sorted((ROOT / room).rglob("*.py")) for rule in broken_rules(path)]
    assert not broken, "\n".join(broken)


def test_every_folder_is_a_room_with_a_rule():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= EVERY_ROOM


def test_every_module_can_be_imported():
    for module in pkgutil.walk_packages([str(ROOT)], "longvid."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)


def test_importing_longvid_loads_neither_torch_nor_diffusers():
    program = """
import sys, longvid
dir(longvid), longvid.__version__
print(sorted({"torch", "diffusers", "transformers", "numpy", "av"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
