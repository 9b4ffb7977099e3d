"""What the README says holds: its commands, its links, its Python and its prompts."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

BLOCK_ONE = """\
pip install .
longvid generate "a red circle moving right on a blue checkered background" --num-frames 64 --output demo.mp4
"""
BLOCK_TWO = "pip install nox && nox -s tests\n"


def blocks(language: str, path: Path = ROOT / "README.md") -> list[str]:
    return [text for kind, text in FENCE.findall(path.read_text()) if kind == language]


def commands() -> list[list[str]]:
    """Every `longvid COMMAND ...` in a shell block of the README and the docs."""
    lines = [
        line for page in DOCUMENTS for block in blocks("bash", page) for line in block.replace("\\\n", " ").splitlines()
    ]
    lines = [re.sub(r"^accelerate launch .*-m longvid.cli.main ", "longvid ", line) for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("longvid ")]


def prompts() -> list[str]:
    tree = ast.parse("\n".join(blocks("python")))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    asked = [words[1] for words in commands() if words[0] == "generate" and not words[1].startswith("-")]
    return asked + [text for text in strings if " background" in text]


def test_the_first_two_command_blocks_are_the_promised_ones():
    assert blocks("bash")[:2] == [BLOCK_ONE, BLOCK_TWO]


def test_ci_runs_the_readme_blocks_and_not_a_copy_of_them():
    script = (ROOT / ".ci" / "run").read_text()
    assert "run_block 2" in script and "run_block 1" in script
    assert "nox -s tests" not in script and "longvid generate" not in script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page):
    links = [link.split("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_name_that_the_python_of_a_page_imports_exists(page):
    for text in blocks("python", page):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_every_script_that_a_page_shows_exists():
    """Their fences say {.python}: in a fence that says python, ruff would format the snippet's marker to pieces."""
    shown = [path for page in DOCUMENTS for path in re.findall(r'^--8<-- "(.+)"$', page.read_text(), re.MULTILINE)]
    assert len(shown) >= 4 and all((ROOT / path).exists() for path in shown)
    assert not [page.name for page in DOCUMENTS if "--8 <" in page.read_text()]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_in_the_documents_has_the_options_it_uses(words):
    if words[0].startswith("-"):
        return
    command = importlib.import_module(f"longvid.cli.{words[0].replace('-', '_')}")
    parser = command.make_parser(f"longvid {words[0]}", "")
    _, rest = parser.parse_known_args(words[1:])
    assert not [word for word in rest if word.startswith("--")]


def test_the_tiny_model_knows_every_word_of_the_prompts():
    from longvid.sprites import vocabulary

    known = {word for phrase in vocabulary() for word in phrase.split()}
    assert not {word for prompt in prompts() for word in prompt.split()} - known


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "train"], ids=" ".join)
def test_every_training_setting_in_the_documents_exists(words):
    from longvid.cli.settings import known_keys
    from longvid.training.run import RECIPES

    known = dict(known_keys(RECIPES[words[1]].schema))
    assert not [word for word in words if "=" in word and word.split("=")[0] not in known]
