"""Experiments that are killed and go on, verdicts in words, and pages: on an experiment whose numbers are a formula."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from longvid.cli.main import main
from longvid.reproduce import (
    EXPERIMENTS,
    Experiment,
    Measure,
    Measured,
    Rises,
    Setup,
    Size,
    Variant,
    Wins,
    reproduce,
)
from longvid.reproduce.crossings import CROSSINGS, crossings_table
from longvid.reproduce.figure import draw_figure
from longvid.reproduce.page import MARKS, index_table, numbers_text, page_text, write_page
from longvid.reproduce.records import MeasurementFile
from longvid.reproduce.report import make_report
from longvid.reproduce.run import measure_missing, missing_batches, writable_folder

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reproductions"
NOISE = (0.3, -0.2, 0.1, -0.4, 0.2, 0.0)


@dataclass
class Formula:
    """Error = how + noise of the prompt; dies when it has measured `patience` batches."""

    patience: int = 10**6
    settings: dict = field(default_factory=lambda: {"version": 1})
    asked: list = field(default_factory=list)

    def measure(self, variant, prompts, seed):
        if len(self.asked) == self.patience:
            raise KeyboardInterrupt
        self.asked.append((variant.name, seed, tuple(prompts)))
        errors = [variant.how + (1 + variant.how) * NOISE[prompt % 6] + 0.01 * seed for prompt in prompts]
        rows = [
            {"error": e, "share": float(e < 1), "odd": e if p % 2 else None}
            for p, e in zip(prompts, errors, strict=True)
        ]
        return [Measured(row, {"curve": [row["error"], 2 * row["error"]]}) for row in rows]


ERROR = Measure("error", "error", "lower", "px", "by formula")
TOY = Experiment(
    name="toy",
    title="Toy",
    source="nobody",
    claim="More is worse.",
    setup="A formula.",
    variants=(
        Variant("none", "none", 0.0, x=0), Variant("some", "some", 0.1, x=1), Variant("much", "much", 2.0, x=2),
        Variant("truth", "truth", 0.0, reference=True),
    ),
    measures=(ERROR, Measure("share", "share right", "higher", "%"), Measure("odd", "odd error", None)),
    expectations=(Wins("none", "much", "error"), Wins("much", "none", "share"), Rises("none", "error", from_paper=False)),
    size=Size(num_prompts=6, num_seeds=2, num_frames=1, batch_size=4),
    bench=lambda setup: Formula(),
    axis="amount",
)  # fmt: skip


def measure(folder, bench=None, **size):
    """Measure what is missing, without a page."""
    bench, setup = bench or Formula(), Setup(replace(TOY.size, **size))
    measure_missing(TOY, setup, bench, MeasurementFile(writable_folder(folder) / "toy.jsonl", "toy", bench.settings))
    return bench


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "index.md").write_text(f"# Head\n{''.join(MARKS).format('experiments', 'experiments')}tail\n")
    run(folder)
    return folder


def run(folder, experiment=TOY, bench=None, **size):
    bench = bench or Formula()
    experiment = replace(experiment, bench=lambda setup: bench)
    page = reproduce(experiment, folder, Setup(replace(TOY.size, **size)))
    return page.read_text(), bench


def test_a_run_that_was_killed_goes_on_and_ends_in_the_same_files(page, tmp_path):
    dying = Formula(patience=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, bench=dying)
    lines = tmp_path / "toy.jsonl"
    lines.write_text(lines.read_text() + '{"variant": "much", "pro')  # killed while it wrote
    _, rest = run(tmp_path)
    assert not set(dying.asked) & set(rest.asked)
    assert lines.read_text().count('"much"') == 12
    assert all(
        (page / f"toy.{end}").read_bytes() == (tmp_path / f"toy.{end}").read_bytes() for end in ("md", "json", "svg")
    )
    assert measure(tmp_path).asked == []


def test_more_prompts_and_seeds_measure_only_what_is_missing(tmp_path):
    measure(tmp_path, num_prompts=4, num_seeds=1)
    bench = measure(tmp_path)
    assert bench.asked[:2] == [("none", 0, (4, 5)), ("some", 0, (4, 5))]
    assert {seed for name, seed, _ in bench.asked if name == "truth"} == {0}
    assert measure(tmp_path, num_prompts=4, num_seeds=1).asked == []
    file = MeasurementFile(tmp_path / "toy.jsonl", "toy", {"version": 1})
    fewer = make_report(TOY, replace(TOY.size, num_prompts=4, num_seeds=1), file)
    assert fewer.rows["none"]["error"].num_values == 4 and len(file.measured) == 42


def test_measurements_with_other_settings_are_not_mixed(tmp_path):
    measure(tmp_path)
    with pytest.raises(ValueError, match="version = 1; got 2"):
        measure(tmp_path, Formula(settings={"version": 2}))
    with pytest.raises(ValueError, match="does not hold measurements of other"):
        MeasurementFile(tmp_path / "toy.jsonl", "other", {"version": 1})
    (tmp_path / "toy.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match="damaged"):
        measure(tmp_path)


def test_a_folder_that_cannot_be_written_is_found_before_the_bench_is_built(tmp_path):
    (tmp_path / "file").touch()
    experiment = replace(TOY, bench=lambda setup: pytest.fail("built"))
    with pytest.raises(ValueError, match="cannot write into"):
        reproduce(experiment, tmp_path / "file" / "below", Setup(TOY.size))


def test_progress_is_told_for_every_cell(tmp_path):
    said = []
    file = MeasurementFile(tmp_path / "toy.jsonl", "toy", {"version": 1})
    measure_missing(TOY, Setup(TOY.size, say=said.append), Formula(), file)
    assert said[0].startswith("toy: 42 measurements") and said[-1].startswith("42/42") and len(said) == 15


def test_a_verdict_says_found_reversed_or_inconclusive_with_its_interval(page):
    text = (page / "toy.md").read_text()
    assert "* **Found.** Error, none against much: −2.00 px (95 % interval −2.55 to −1.45, 6 prompts" in text
    assert "as expected in 2 of 2 seeds)." in text
    assert "* **Not found: it is the other way round.** Share right, much against none: −83.3 points" in text
    assert "* **Inconclusive.** Error, none: +0.00 px (95 % interval" in text and "(our expectation)" in text
    assert "The paper's order of results was found in 1 of 2 comparisons, was the other way round in 1" in text
    numbers = json.loads((page / "toy.json").read_text())
    assert [one["outcome"] for one in numbers["verdicts"]] == ["found", "reversed", "inconclusive"]


def test_one_prompt_and_equal_pairs_and_nothing_decide_nothing():
    lonely = {"none": {"error": {(0, 0): 1.0}}, "much": {"error": {(0, 0): 2.0, (0, 1): 2.0}}}
    verdict = TOY.expectations[0].judge(TOY, lonely)
    assert verdict.outcome == "inconclusive" and "−1.00 px (one prompt gives no interval; 1 prompt)" in verdict.sentence
    verdict = TOY.expectations[0].judge(TOY, {name: {"error": {(0, 0): 1.0, (1, 0): 2.0}} for name in ("none", "much")})
    assert verdict.outcome == "inconclusive" and "(no pair differs; 2 prompts)" in verdict.sentence
    verdict = TOY.expectations[0].judge(TOY, {})
    assert verdict.outcome == "inconclusive" and "nothing was measured in both" in verdict.sentence


def test_a_falling_number_is_found_where_it_should_fall():
    table = {"none": {"error": {(prompt, 0): -1 - 0.1 * prompt for prompt in range(4)}}}
    assert [Rises("none", "error", falls=falls).judge(TOY, table).outcome for falls in (True, False)] == [
        "found",
        "reversed",
    ]


def test_the_table_has_every_variant_and_the_best_of_the_sweep(page):
    text = (page / "toy.md").read_text()
    assert "| truth | 0.00 px (−0.27 … 0.27) | 100.0 % (61.0 … 100.0) |" in text
    assert "The best mean of the sweep: error at none, share right at none and some." in text
    assert "![Toy](toy.svg)" in text and (page / "toy.svg").stat().st_size > 1000


def test_curves_of_single_videos_are_drawn(page, tmp_path):
    curved = replace(TOY, curves={"curve": "a curve"}, variants=TOY.variants[:2], expectations=())
    report = make_report(curved, TOY.size, MeasurementFile(page / "toy.jsonl", "toy", {"version": 1}))
    draw_figure(curved, report.rows, report.measured, tmp_path / "toy.svg")
    assert "a curve" in (tmp_path / "toy.svg").read_text()


def test_the_index_lists_what_was_run(page):
    text = (page / "index.md").read_text()
    assert text.startswith("# Head") and text.endswith("tail\n") and index_table(page) in text
    assert text.count("| not run |") == len(EXPERIMENTS)


@pytest.mark.parametrize("numbers", sorted(PAGES.glob("*.json")), ids=lambda path: path.stem)
def test_a_committed_page_is_what_its_measurements_say(numbers):
    committed = json.loads(numbers.read_text())
    experiment, size = EXPERIMENTS[committed["experiment"]], Size(**committed["size"])
    file = MeasurementFile(numbers.with_suffix(".jsonl"), experiment.name, committed["settings"])
    assert not list(missing_batches(experiment, size, file))
    report = make_report(experiment, size, file)
    assert page_text(report) == numbers.with_suffix(".md").read_text()
    assert numbers_text(report) == numbers.read_text()
    assert numbers.with_suffix(".svg").is_file()


def test_the_committed_index_is_that_of_the_committed_pages():
    text = (PAGES / "index.md").read_text()
    assert index_table(PAGES) in text and crossings_table(PAGES) in text


def test_the_table_of_crossings_tells_better_from_worse(tmp_path):
    crossing = next(one for one in CROSSINGS if one.experiment == "mitigated-art-v")
    experiment = EXPERIMENTS[crossing.experiment]
    size = replace(experiment.size, num_prompts=6, num_seeds=1)
    file = MeasurementFile(tmp_path / f"{experiment.name}.jsonl", experiment.name, {})
    values = {
        crossing.plain: lambda prompt: {"background_drift": 5 + prompt, "color_drift": 2.0, "direction": prompt % 2},
        crossing.crossed: lambda prompt: {
            "background_drift": 3 + prompt + 0.1 * (prompt % 2), "color_drift": 3 + 0.1 * prompt, "direction": prompt < 3,
        },
    }  # fmt: skip
    for variant in experiment.variants:
        of = values.get(variant.name, values[crossing.plain])
        file.append(variant.name, 0, range(6), [Measured(of(prompt)) for prompt in range(6)])
    assert "not run" in crossings_table(tmp_path)
    (tmp_path / "index.md").write_text("head\n<!-- crossings -->\n<!-- end of crossings -->\ntail\n")
    write_page(experiment, size, file, tmp_path)
    row = next(line for line in crossings_table(tmp_path).splitlines() if "[ART-V](mitigated-art-v.md)" in line)
    better, worse, undecided = row.split("|")[3:6]
    assert better.startswith(" background drift −1.95 /255 (−2.0") and "colour drift +1.25 ΔE (+1." in worse
    assert undecided == " direction right "
    assert crossings_table(tmp_path) in (tmp_path / "index.md").read_text()


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=list(EXPERIMENTS))
def test_a_registered_experiment_names_only_what_it_has(experiment):
    for expectation in experiment.expectations:
        experiment.measure(expectation.measure)
        names = (expectation.variant,) if isinstance(expectation, Rises) else (expectation.better, expectation.worse)
        assert all(experiment.variant(name) for name in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["art-v-maks"], "unknown experiment 'art-v-maks'; did you mean 'art-v-mask'?"),
        ([], "expected the NAME of an experiment"),
        (["art-v-mask", "--seeds", "0"], "expected a whole number of at least 1; got '0'"),
        (["art-v-mask", "--seed", "1"], "unknown option '--seed'; did you mean '--seeds'?"),
        (["art-v-mask-strength", "--training-steps", "9"], "trains nothing"),
    ],
)
def test_bad_words_are_named(words, message, capsys):
    assert main(["reproduce", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named_before_any_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["reproduce", "art-v-mask", "--output", str(tmp_path / "file")]) == 1
    assert "cannot write into" in capsys.readouterr().err


def test_the_list_names_every_experiment(capsys):
    assert main(["reproduce", "--list"]) == 0
    assert all(name in capsys.readouterr().out for name in [*EXPERIMENTS][:1])
