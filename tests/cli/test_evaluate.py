from __future__ import annotations

import json
from pathlib import Path


def test_the_report_is_printed_and_written(run, model):
    result = run("evaluate", "--sprites", model, "--part", "vae", "--json", "report.json", "--quiet")
    assert result.code == 0, result.err
    report = json.loads(Path("report.json").read_text())
    assert report["model"]["name"] == str(model)
    assert report["title"] in result.out and "95 % interval" in result.out


def test_an_unknown_model_and_a_path_that_cannot_be_written_are_found_first(run, model):
    assert "no bundled model is called" in run("evaluate", "--sprites", "longvid/none").err
    assert "cannot write" in run("evaluate", "--sprites", model, "--json", "no/report.json").err
