"""The figures that the pages show are those that were measured, and on the models that ship."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from longvid import LongVideoPipeline
from longvid.pipelines.fingerprint import fingerprint_of
from longvid.pipelines.image_model import load_image_model

ROOT = Path(__file__).resolve().parents[1]
REPORTS = sorted((ROOT / "docs" / "assets" / "figures").glob("*.json"))


def tool():
    spec = importlib.util.spec_from_file_location("figures_table", ROOT / "tools" / "figures_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "every"), tool().PAGES.items(), ids=lambda value: getattr(value, "name", None))
def test_the_table_on_a_page_is_that_of_the_reports(page, every):
    assert tool().with_table(page.read_text(), every=every) == page.read_text()


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_a_report_is_of_the_weights_that_ship(report):
    model = json.loads(report.read_text())["model"]
    if model["name"] == "longvid/base-tiny":
        parts = {name: fingerprint_of(part) for name, part in load_image_model(model["name"]).components.items()}
    else:
        parts = LongVideoPipeline.from_pretrained(model["name"]).fingerprint()
    assert model["fingerprint"] == parts


def test_there_is_a_report_of_every_part():
    titles = {json.loads(path.read_text())["title"] for path in REPORTS}
    assert titles == {"autoencoder", "text to image", "text to video"}
