"""Keep the figures in README.md and docs/figures.md those of the reports: `python tools/figures_table.py [REPORT.json ...]`.

A report comes from `longvid evaluate --sprites ... --json REPORT.json`; those named are taken into docs/assets/figures,
without their prompts, and the tables between the two marks of each page are written anew from what lies there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "docs" / "assets" / "figures"
PAGES = {ROOT / "README.md": False, ROOT / "docs" / "figures.md": True}
"""Pages, and whether figures without a bar stand there too."""
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
ORDER = ("autoencoder", "text to image", "text to video")


def take(path: Path) -> None:
    """Keep a report's settings, model and figures."""
    report = {key: value for key, value in json.loads(path.read_text()).items() if key != "prompts"}
    REPORTS.mkdir(parents=True, exist_ok=True)
    model = report["model"]["name"].removeprefix("longvid/")
    target = REPORTS / f"{report['title'].replace(' ', '-')}-{model}.json"
    target.write_text(json.dumps(report, indent=1) + "\n")


def table(*, every: bool) -> str:
    """One row per figure of every report, or per figure that a bar is set for, in Markdown."""
    reports = [json.loads(path.read_text()) for path in REPORTS.glob("*.json")]
    lines = [
        "| model | figure | value | 95 % interval | bar | | chance | judge's ceiling | n |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for report in sorted(reports, key=lambda report: (ORDER.index(report["title"]), report["model"]["name"])):
        for name, figure in report["figures"].items():
            if every or figure.get("bar") is not None:
                lines.append(row(report["model"]["name"], name, figure))
    return "\n".join(lines) + "\n"


def row(model: str, name: str, figure: dict) -> str:
    """One figure beside its bar, the level of chance and the judge's ceiling through the model's autoencoder."""

    def show(value: float | None) -> str:
        if value is None:
            return ""
        return f"{100 * value:.1f} %" if figure["kind"] == "share" else f"{value:.2f} {figure['unit']}".rstrip()

    sign = "≤" if figure.get("at_most") else "≥"
    bar = "" if figure.get("bar") is None else f"{sign} {show(figure['bar'])}"
    met = {True: "met", False: "**missed**", None: ""}[figure.get("met")]
    interval = " – ".join(show(value) for value in figure["interval"] or ())
    cells = (model, name, show(figure["value"]), interval, bar, met, show(figure.get("chance")))
    return f"| {' | '.join((*cells, show(figure.get('ceiling_vae')), str(figure['n'])))} |"


def with_table(text: str, *, every: bool) -> str:
    """A page with the table between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(every=every)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        take(Path(argument))
    for page, every in PAGES.items():
        page.write_text(with_table(page.read_text(), every=every))
