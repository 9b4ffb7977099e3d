"""What `import longvid` gives, and what it does not cost."""

import ast
from pathlib import Path

import pytest

import longvid


def test_every_public_name_resolves_and_is_listed():
    for name, home in longvid._HOMES.items():
        value = getattr(longvid, name)
        assert name in dir(longvid)
        assert value is longvid.__dict__[name], "the second look-up is a plain one"
        assert home == "diffusers" or value.__module__.startswith("longvid"), name
    for room in longvid._ROOMS:
        assert getattr(longvid, room).__name__ == f"longvid.{room}"


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(longvid.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: "." * node.level + node.module for node in imports for alias in node.names}
    assert seen == longvid._HOMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'LongVideoPipelin'"):
        longvid.LongVideoPipelin  # noqa: B018
