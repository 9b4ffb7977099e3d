from __future__ import annotations

import json

import torch

from longvid.cli.info import VARIABLES


def test_the_report_names_versions_devices_and_folders(run):
    report = json.loads(run("info", "--json").out)
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]
    assert "cpu" in report["torch"]["devices"]
    assert "libx264" in report["video"]["encoders"]
    assert set(report["environment variables"]) == set(VARIABLES)
    assert report["folders"]["model cache"]


def test_the_text_holds_every_entry_of_the_json(run):
    report, text = json.loads(run("info", "--json").out), run("info").out
    for title, entries in report.items():
        assert title in text
        assert all(name in text for name in entries)
