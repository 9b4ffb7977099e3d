from __future__ import annotations

import subprocess
import sys

import pytest

from longvid.cli.main import COMMANDS, describe
from longvid.cli.parser import nearest


def test_help_loads_neither_torch_nor_diffusers():
    code = (
        "import sys\n"
        "from longvid.cli.main import COMMANDS, main\n"
        "assert main(['--help']) == 0\n"
        "assert all(main([name, '--help']) == 0 for name in COMMANDS)\n"
        "sys.exit(', '.join({'torch', 'diffusers', 'transformers', 'numpy', 'av'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_names_every_command_and_exits_with_0(run):
    result = run("--help")
    assert result.code == 0
    assert all(name in result.out and what in result.out for name, what in COMMANDS.items())


def test_no_words_print_the_help_and_are_wrong_usage(run):
    result = run()
    assert result.code == 2 and "commands:" in result.out


def test_the_version_is_that_of_the_package(run):
    import longvid

    assert run("--version").out == f"longvid {longvid.__version__}\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["genrate"], "unknown command 'genrate'; did you mean 'generate'?"),
        (["--versoin"], "unknown option '--versoin'; did you mean '--version'?"),
        (["generate", "a", "--num-frame", "3"], "unknown option '--num-frame'; did you mean '--num-frames'?"),
        (["generate", "a", "--num-frames", "none"], "expected a whole number of at least 1; got 'none'"),
        (["generate", "a", "--num-frames", "0"], "expected a whole number of at least 1; got '0'"),
        (["generate", "a", "--dtype", "bfloat61"], "did you mean 'bfloat16'?"),
        (["generate", "a", "--frames-per-prompt", "3,x"], "expected whole numbers of at least 1, such as 16 or 16,32"),
        (["generate"], "expected a prompt"),
        (["models", "--jsn"], "unknown option '--jsn'; did you mean '--json'?"),
        (["info", "more"], "expected no further words; got 'more'"),
        (["evaluate"], "expected videos, or --sprites"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_nearest_word(run, words, hint):
    result = run(*words)
    assert result.code == 2
    first, second = result.err.splitlines()
    assert first.startswith("longvid: error: ") and hint in first
    assert "--help` for what it takes" in second


def test_nearest_says_nothing_when_no_word_is_close():
    assert nearest("zebra", ["alpha", "beta"]) == ""


def test_an_error_of_the_library_is_one_line_without_a_traceback(run):
    result = run("models", "longvid/art-v-tony")
    assert result.code == 1 and result.out == ""
    assert result.err.startswith("longvid: error: ") and result.err.count("\n") == 1


def test_debug_shows_the_traceback_too(run):
    result = run("models", "longvid/art-v-tony", "--debug")
    assert result.code == 1 and "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("longvid: error: ")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "No such file or directory: x.png"),
        (KeyError("k"), "KeyError: 'k' (add --debug for the traceback)"),
        (RuntimeError(), "RuntimeError: no message (add --debug for the traceback)"),
    ],
)
def test_every_error_is_described_in_one_line(error, line):
    assert describe(error) == line
