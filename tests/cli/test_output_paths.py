from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from longvid.cli.output_paths import check_outputs, check_sources_kept, free_name
from longvid.cli.request import OutputSettings


def test_the_record_lies_beside_the_video(tmp_path):
    assert check_outputs(OutputSettings(path=f"{tmp_path}/demo.mp4")).record == tmp_path / "demo.json"
    assert check_outputs(OutputSettings(path=f"{tmp_path}/frames/")).record == tmp_path / "frames.json"
    assert check_outputs(OutputSettings(path=f"{tmp_path}/take.2/")).record == tmp_path / "take.2.json"


def test_checking_leaves_nothing_behind_but_the_folders_above(tmp_path):
    check_outputs(OutputSettings(path=f"{tmp_path}/new/demo.mp4", contact_sheet=f"{tmp_path}/new/sheet.png"))
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]


def test_checking_leaves_an_existing_video_as_it_is(tmp_path):
    (tmp_path / "demo.mp4").write_bytes(b"kept")
    check_outputs(OutputSettings(path=f"{tmp_path}/demo.mp4"))
    assert (tmp_path / "demo.mp4").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"path": "demo.mp5"}, r"--output: expected a name that ends in .*; got 'demo.mp5'; did you mean '.mp4'\?"),
        ({"path": "folder.mp4"}, "'folder.mp4' is a folder, not a file"),
        ({"path": "file"}, "'file' is a file; a name without a suffix means a folder of PNGs"),
        ({"path": "file/demo.mp4"}, "cannot write into 'file'"),
        ({"path": "demo.mp4", "contact_sheet": "sheet.mp4"}, "--contact-sheet: expected a name that ends in .png"),
        ({"path": "demo.mp4", "show_masks": "masks.tiff"}, "--show-masks: expected a name that ends in .png, .mp4"),
        ({"path": "demo.mp4", "show_masks": "demo.mp4"}, "expected a file of its own for each output"),
        ({"path": "there.mp4", "overwrite": False}, "'there.mp4' exists"),
        ({"path": "folder.mp4/", "overwrite": False}, "is not empty"),
        ({"path": "/proc/demo.mp4"}, "cannot write into '/proc'"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, settings, hint):
    monkeypatch.chdir(tmp_path)
    Path("folder.mp4").mkdir()
    Path("folder.mp4/000000.png").touch()
    Path("file").touch()
    Path("there.mp4").touch()
    with pytest.raises(ValueError, match=hint):
        check_outputs(OutputSettings(**settings))


def test_a_video_without_a_name_takes_the_next_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_outputs(OutputSettings()).video == Path("video.mp4")
    Path("video.mp4").touch()
    Path("video-2.json").touch()
    assert check_outputs(OutputSettings()).video == Path("video-3.mp4")
    assert free_name(Path("take-2.mp4")) == Path("take-2.mp4")


def record_of(video: str, *, finished: bool = True) -> str:
    """A record as it is while a video is made, or behind it."""
    settings = {"settings": {"output": {"path": video}}}
    return json.dumps(settings | ({"output": {"path": video}} if finished else {}))


@pytest.mark.parametrize("finished", [True, False])
def test_a_record_never_takes_the_place_of_that_of_another_video_that_exists(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    Path("demo.json").write_text(record_of("demo.mp4", finished=finished))
    assert check_outputs(OutputSettings(path="demo.webm")).record == Path("demo.json")  # demo.mp4 was deleted
    Path("demo.mp4").touch()
    assert check_outputs(OutputSettings(path="demo.mp4")).record == Path("demo.json")
    assert check_outputs(OutputSettings(path="demo.webm", overwrite=False)).record == Path("demo.webm.json")
    assert check_outputs(OutputSettings(path="demo/")).record == Path("demo.png.json")


def test_a_video_keeps_the_name_of_its_record(tmp_path):
    video, record = tmp_path / "demo.webm", tmp_path / "demo.webm.json"
    video.touch()
    record.write_text(record_of("demo.webm"))
    assert check_outputs(OutputSettings(path=str(video))).record == record


def test_a_file_that_is_no_record_is_not_replaced_by_one(tmp_path):
    (tmp_path / "demo.json").write_text("[1, 2]")
    assert check_outputs(OutputSettings(path=f"{tmp_path}/demo.mp4")).record == tmp_path / "demo.mp4.json"
    (tmp_path / "demo.mp4.json").write_text("{}")
    with pytest.raises(ValueError, match="would replace demo.json or demo.mp4.json, which belong to other files"):
        check_outputs(OutputSettings(path=f"{tmp_path}/demo.mp4"))


@pytest.mark.parametrize(
    ("output", "source", "harm"),
    [
        ("in.mp4", "in.mp4", "is the video itself"),
        ("sub/../in.mp4", "in.mp4", "is the video itself"),
        ("symbolic.mp4", "in.mp4", "is the video itself"),
        ("hard.mp4", "in.mp4", "is the video itself"),
        ("frames", "frames", "is the video itself"),
        ("frames", "frames/000000.png", "is the folder of the video"),
        ("frames/sheet.png", "frames", "would be a frame of the video"),
        ("out.mp4", "in.mp4", None),
        ("frames", "frames/own.png", None),
        ("frames/masks.mp4", "frames", None),
    ],
)
def test_an_output_may_neither_replace_a_source_nor_land_among_its_frames(tmp_path, monkeypatch, output, source, harm):
    monkeypatch.chdir(tmp_path)
    for folder in ("sub", "frames"):
        Path(folder).mkdir()
    for name in ("in.mp4", "frames/000000.png", "frames/own.png"):
        Path(name).touch()
    Path("symbolic.mp4").symlink_to("in.mp4")
    os.link("in.mp4", "hard.mp4")
    if harm is None:
        check_sources_kept({"--output": Path(output)}, {"video": source, "image": None})
        return
    with pytest.raises(ValueError, match=f"--output: '{output}' {harm}; choose another name"):
        check_sources_kept({"--show-masks": None, "--output": Path(output)}, {"video": str(Path(source).resolve())})
