from __future__ import annotations

from pathlib import Path

import pytest

from longvid.cli.output_paths import check_outputs, free_name
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
