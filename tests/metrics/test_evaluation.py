import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from longvid import VideoWriter
from longvid.metrics import METRICS, MissingWeights, evaluate_video
from longvid.metrics.chart import line_chart, nice_ticks
from longvid.metrics.page import html_page
from longvid.metrics.pictures import FrameStrip, LargestSteps, XTSlice
from longvid.metrics.reading import find_videos, open_video
from longvid.metrics.table import format_table, short
from metrics_videos import grey, one_way, translated, wandering

CHEAP = ("ofs", "seams", "flicker", "brightness_drift")


def write(path, video, **options):
    with VideoWriter(path, fps=8, **options) as writer:
        writer.write(video.transpose(0, 1)[None])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three videos of 20 frames: even, faded, spliced at frame 10."""
    root = tmp_path_factory.mktemp("videos")
    even = translated(20, dx=1)
    write(root / "even", even)
    write(root / "faded", even * torch.linspace(1, 0.5, 20).view(-1, 1, 1, 1))
    write(root / "spliced", torch.cat([even[:10], translated(10, dx=1, seed=4)]))
    return root


@pytest.fixture(scope="module")
def reports(folder):
    def report(name):
        return evaluate_video(folder / name, metrics=CHEAP, flow=one_way(1), flow_size=None, borders=[10])

    return {name: report(name) for name in ("even", "faded", "spliced")}


def test_a_file_gives_what_the_metrics_give_on_its_frames(folder, reports):
    frames = torch.stack(list(open_video(folder / "faded")[0]))
    report = reports["faded"]
    assert report.num_frames == 20 and tuple(report.results) == CHEAP and not report.not_measured
    metric = __import__("longvid.metrics.drift", fromlist=["_"]).BrightnessDrift()
    metric.update(frames)
    assert report.results["brightness_drift"] == metric.compute()


def test_worse_videos_have_worse_numbers(reports):
    values = {name: {key: result.value for key, result in report.results.items()} for name, report in reports.items()}
    assert values["faded"]["brightness_drift"] > values["even"]["brightness_drift"] + 10
    assert values["spliced"]["seams"] > 1.5 * values["even"]["seams"]


def test_what_cannot_be_measured_is_listed_and_the_rest_goes_on(folder, monkeypatch):
    def no_weights(**_):
        raise MissingWeights("it needs the file weights.pth")

    def no_package(**_):
        import a_package_that_is_not_there  # noqa: F401

    monkeypatch.setitem(METRICS, "secret", no_weights)
    monkeypatch.setitem(METRICS, "absent", no_package)
    report = evaluate_video(folder / "even", metrics=["secret", "absent", "flicker"])
    assert list(report.results) == ["flicker"]
    assert report.not_measured["secret"] == "it needs the file weights.pth"
    assert "a_package_that_is_not_there" in report.not_measured["absent"]
    assert "not measured: secret: it needs the file weights.pth" in format_table([report])


def test_without_a_flow_only_the_metrics_of_flow_are_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")
    report = evaluate_video(folder / "even", metrics=["mawe", "ofs", "flicker"])
    assert list(report.results) == ["flicker"] and "pip install" in report.not_measured["ofs"]


def test_wrong_names_and_options_are_found_before_anything_is_read(folder):
    with pytest.raises(ValueError, match="did you mean 'mawe'"):
        evaluate_video("nowhere.mp4", metrics=["mave"])
    with pytest.raises(ValueError, match="not measured: loops"):
        evaluate_video("nowhere.mp4", metrics=["mawe"], options={"loops": {"max_lag": 9}})
    with pytest.raises(ValueError, match="there is no video"):
        evaluate_video("nowhere.mp4", metrics=["flicker"])
    report = evaluate_video(folder / "even", metrics=["loops"], options={"loops": {"max_lag": 9}})
    assert "9 frames" in report.results["loops"].note


@pytest.mark.parametrize(
    ("name", "options", "codec", "lossless"),
    [
        ("frames", {}, "PNG", True),
        ("a.mkv", {"codec": "ffv1"}, "ffv1", True),
        ("a.mp4", {}, "h264", False),
        ("b.mp4", {"codec": "libx264rgb", "crf": 0}, "h264", None),
        ("a.gif", {}, "GIF", False),
    ],
)
def test_the_report_says_what_was_read_and_whether_it_is_lossless(tmp_path, name, options, codec, lossless):
    _, reading = open_video(write(tmp_path / name, translated(8, size=16), **options))
    assert reading.lossless is lossless and codec in reading.codec and reading.fps == pytest.approx(8, abs=0.2)
    assert ("lossless" in reading.in_words()) == (lossless is True)


def test_a_folder_of_videos_means_all_of_them(folder, tmp_path):
    write(tmp_path / "b.mkv", grey(0.5), codec="ffv1")
    write(tmp_path / "a.mkv", grey(0.5), codec="ffv1")
    assert [path.name for path in find_videos(tmp_path)] == ["a.mkv", "b.mkv"]
    assert find_videos(folder / "even") == [folder / "even"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="a folder of PNGs or of videos"):
        find_videos(tmp_path / "empty")


def test_a_lossless_file_and_a_folder_give_the_same_numbers(folder, tmp_path):
    video = torch.stack(list(open_video(folder / "spliced")[0]))
    write(tmp_path / "a.mkv", video, codec="ffv1")
    first, second = (evaluate_video(path, metrics=CHEAP[1:]) for path in (tmp_path / "a.mkv", folder / "spliced"))
    assert first.results == second.results


def test_the_json_holds_every_number_and_no_nan(folder, reports):
    text = json.dumps(reports["even"].as_dict(), allow_nan=False)
    values = json.loads(text)
    assert values["read"]["num_frames"] == 20 and values["borders"] == [10]
    assert len(values["results"]["flicker"]["curve"]) == 18
    drift = values["results"]["brightness_drift"]
    assert drift["start_end_contrast"] == pytest.approx(drift["value"])
    still = evaluate_video(folder / "even", metrics=["mawe_released"], flow=one_way(0), flow_size=None).as_dict()
    assert still["results"]["mawe_released"]["curve"] == []


def test_the_table_shows_one_video_with_its_ends_and_several_side_by_side(reports):
    alone = format_table([reports["faded"]])
    row = next(line for line in alone.splitlines() if line.startswith("brightness_drift"))
    value, start, end = (float(word) for word in row.split()[1:4])
    assert start - end == pytest.approx(value, rel=0.01) and row.endswith("lower")
    both = format_table([reports["faded"], reports["spliced"]])
    assert next(line for line in both.splitlines() if line.startswith("metric")).split()[1:3] == ["faded", "spliced"]
    assert "*" in next(line for line in both.splitlines() if line.startswith("seams")).split()[2]


class Page(HTMLParser):
    """Open tags, text, and every address on the page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.text, self.ids = [], [], "", set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[key] for key in ("src", "href") if attributes.get(key)]
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        if tag not in {"meta", "img", "line", "circle", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"line", "circle", "polyline"}:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(reports):
    text = html_page([replace(report, prompt="a <red> circle") for report in reports.values()])
    page = Page(text)
    assert not page.open
    assert {address.split(",")[0] for address in page.addresses if not address.startswith("#")} == {
        "data:image/png;base64"
    }
    assert {address[1:] for address in page.addresses if address.startswith("#")} == set(CHEAP) <= page.ids
    assert "http" not in text and "<script" not in text and "url(" not in text
    assert "a <red> circle" in page.text and "lossless" in page.text and "The worst seams" in page.text
    assert text.count("<svg") == len(CHEAP) and "prefers-color-scheme: dark" in text


def test_the_page_says_which_video_should_show_what(reports):
    first, *others = reports.values()
    text = html_page([replace(first, prompt="a red circle"), *others])
    assert text.count("a red circle") == 1 and '<p class="soft">prompt:' not in text
    text = html_page([replace(report, prompt="a red circle") for report in (first, *others)])
    assert text.count("a red circle") == 1 and '<p class="soft">prompt: a red circle' in text


def test_a_page_compares_one_to_six_videos(reports):
    with pytest.raises(ValueError, match="1 to 6 videos; got 7"):
        html_page([reports["even"]] * 7)


def test_a_chart_is_well_formed_keeps_peaks_and_breaks_at_gaps():
    curve = [0.0] * 5000
    curve[1234], curve[3000] = 7.0, float("nan")
    svg = ElementTree.fromstring(line_chart([("a & b", 1, curve)], title="x < y", borders=[16, 32]))
    lines = [part for part in svg if part.get("class") == "k0 line"]
    heights = [float(point.split(",")[1]) for line in lines for point in line.get("points").split()]
    assert len(lines) == 2 and len(heights) < 1000 and min(heights) < min(sorted(heights)[1:])
    assert sum(part.get("class") == "border" for part in svg) == 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 250), (0.5, 0.5), (0, 0), (1e-9, 3e-9), (1e5, 1e5 + 1)])
def test_ticks_are_round_and_hold_the_curve(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 12


def test_the_x_t_slice_shows_even_motion_as_slanted_lines():
    picture = XTSlice()
    video = translated(20, dx=1)
    picture.update(video)
    columns = picture.compute()
    assert columns.shape == (24, 20, 3)
    for time in range(20):
        assert np.array_equal(np.roll(columns[:, 0], time, axis=0), columns[:, time])


def test_pictures_of_a_long_video_stay_small():
    drawn, strip, steps = XTSlice(columns=32), FrameStrip(number=4, side=8), LargestSteps(number=2, side=8)
    for part in wandering(300).split(64):
        for picture in (drawn, strip, steps):
            picture.update(part)
    assert 32 <= drawn.compute().shape[1] <= 65
    numbers = [number for number, _ in strip.compute()]
    assert numbers[0] == 0 and numbers[-1] == 299 and len(numbers) == 4
    assert all(pixels.shape == (8, 8, 3) for _, pixels in strip.compute()) and len(steps.compute()) == 2


def test_the_largest_step_is_the_splice():
    steps = LargestSteps(number=1)
    steps.update(torch.cat([grey(0.2, 0.21, 0.22), grey(0.8, 0.81)]))
    change, frame, before, after = steps.compute()[0]
    assert frame == 3 and change == pytest.approx(255 * 0.58, abs=0.01)
    assert before[0, 0, 0] == 56 and after[0, 0, 0] == 204


def test_numbers_are_short():
    assert [short(value) for value in (0.0, 1.0, 87.5612, 0.00123456, 123456.7, 1e-9)] == [
        "0", "1", "87.56", "0.001235", "123457", "1e-09",
    ]  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_frames_need_no_more_memory_than_a_hundred(tmp_path):
    program = """
import resource, sys
from longvid.metrics import evaluate_video
for path in sys.argv[1:]:
    evaluate_video(path, flow_size=None, metrics=(
        "mawe", "flow_std", "seams", "flicker", "loops", "sharpness_drift", "color_drift"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    for name, rounds in (("short.mkv", 1), ("long.mkv", 100)):
        with VideoWriter(tmp_path / name, codec="ffv1") as writer:
            for part in range(rounds):
                writer.write(wandering(100, seed=part % 5).transpose(0, 1)[None])
    command = [sys.executable, "-c", program, tmp_path / "short.mkv", tmp_path / "long.mkv"]
    short_peak, long_peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert long_peak < short_peak + 30  # MiB: the scalars of ten thousand frames are below one
