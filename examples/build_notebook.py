"""Build a notebook from its cells and run it, so that its outputs are real and visible on the page.

`python build_notebook.py quickstart` makes `quickstart.ipynb` of `quickstart.cells`; with `--check` it runs the cells again
and complains if the notebook has other cells or no outputs, without touching it.
"""

import os
import re
import sys
import tempfile
import textwrap
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def cells(source):
    make = {"text": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    for kind, text in re.findall(r"^%% (\w+)\n(.*?)\s*(?=^%%|\Z)", source, re.MULTILINE | re.DOTALL):
        yield make[kind](text)


def executed(source):
    notebook = nbformat.v4.new_notebook(cells=list(cells(source)))
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same notebook gets the same file
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]  # a notebook may import a script beside it
        client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}})
        client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":  # progress bars and the like
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def check(fresh, path):
    stored = nbformat.read(path, as_version=4)
    if [cell.source for cell in stored.cells] != [cell.source for cell in fresh.cells]:
        sys.exit(f"{path.name} has other cells than {path.stem}.cells; build it again")
    pairs = zip(fresh.cells, stored.cells, strict=True)
    bare = [cell.source for ours, cell in pairs if ours.get("outputs") and not cell.outputs]
    if bare:
        sys.exit(textwrap.shorten(f"{path.name} lacks the outputs of: {bare}", 300))


def main(name, *options):
    path = HERE / f"{name}.ipynb"
    notebook = executed(path.with_suffix(".cells").read_text(encoding="utf-8"))
    if "--check" in options:
        check(notebook, path)
    else:
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
