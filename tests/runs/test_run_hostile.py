"""Run folders that somebody edited: a clear error, no allocation by what they claim, nothing touched outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import tiny_runs
from longvid import Run, StreamState
from longvid.runs import RunWatcher
from longvid.runs.folder import digest_of
from longvid.runs.manifest import NAME, dumps
from tiny_runs import begin_run

FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
HOSTILE = [
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, -0.5, 1e308, "", "a", "../../outside", "/etc/passwd", "x" * 200_000,
    "\0", [], [0], [[[[[[[[[[[0]]]]]]]]]]], {}, {"a": 1}, ["../x"],
]  # fmt: skip


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.art_v()


@pytest.fixture(scope="module")
def half(pipe, tmp_path_factory):
    """A run that was stopped behind its second chunk, in a folder with a neighbour."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "000000-1.mp4").write_text("mine")
    run = begin_run(outside / "run", pipe, image=torch.rand(3, 16, 16))
    with pytest.raises(Stop):
        run.resume(pipe, watcher=Stopper(5))
    return Run(run.path)


@pytest.fixture
def run(half, tmp_path):
    """A copy of it."""
    shutil.copytree(half.path.parent, tmp_path / "outside")
    return Run(tmp_path / "outside" / "run")


class Stop(Exception):
    pass


class Stopper(RunWatcher):
    def __init__(self, windows=1):
        self.left = windows

    def on_window(self, window):
        self.left -= 1
        if not self.left:
            raise Stop


def reseal(run, values):
    """Write a manifest with a checksum that fits, as somebody who knows the format could."""
    (run.path / NAME).write_text(dumps({name: value for name, value in values.items() if name != "checksum"}))


def go_on(path, pipe):
    """Open and go on for one window."""
    Run(path).resume(pipe, watcher=Stopper())


def outside_of(run):
    folder = run.path.parent
    paths = [path for path in folder.rglob("*") if run.path not in path.parents and path != run.path]
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in paths}


def places(values, at=()):
    """Every place in nested values."""
    yield at
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in entries:
        yield from places(value, (*at, name))


@FEW
@given(cut=st.integers(0, 2**16), flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 7)), max_size=4))
def test_a_manifest_cut_short_or_with_flipped_bits_is_refused_or_says_the_same(half, tmp_path_factory, cut, flips):
    folder = tmp_path_factory.getbasetemp() / "flipped"
    folder.mkdir(exist_ok=True)
    data = bytearray((half.path / NAME).read_bytes())
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    (folder / NAME).write_bytes(data if flips else data[: cut % len(data)])
    with contextlib.suppress(ValueError):
        assert Run(folder).manifest == half.manifest


@FEW
@given(data=st.data())
def test_a_manifest_with_any_value_in_any_place_is_refused_or_harmless(half, pipe, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "edited"
    if not folder.exists():
        shutil.copytree(half.path.parent, folder)
    run = half.__class__.__new__(Run)
    run.path = folder / "run"
    values = json.loads((half.path / NAME).read_text())
    values.pop("checksum")
    place = data.draw(st.sampled_from([place for place in places(values) if place]))
    target = values
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = data.draw(st.sampled_from(HOSTILE))
    reseal(run, values)
    before = outside_of(run)
    try:
        with contextlib.suppress(ValueError, Stop):
            go_on(run.path, pipe)
    finally:
        shutil.rmtree(run.path)
        shutil.copytree(half.path, run.path)
    assert outside_of(run) == before


@pytest.mark.parametrize("name", ["format", "request", "keys", "options", "chunks", "model"])
def test_a_manifest_without_an_entry_is_refused(run, name):
    values = json.loads((run.path / NAME).read_text())
    del values[name]
    reseal(run, values)
    with pytest.raises(ValueError, match="lacks|not the manifest"):
        Run(run.path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["request"].update(height=10**9), "'height' must be a whole number from 1 to"),
        (lambda v: v["request"].update(height=2**14, width=2**14), "a frame has up to"),
        (lambda v: v["request"].update(num_frames=10**18), "'num_frames' must be a whole number from 1 to"),
        (lambda v: v["request"].update(height=32, width=64), "must have shape|damaged"),
        (
            lambda v: v["request"].update(first_frame_pipeline="os.system"),
            "expected one of image, video and first_frame_pipeline",
        ),
        (lambda v: v["request"].update(callback_on_step_end="x"), "arguments that the model does not take"),
        (lambda v: v["chunks"][1].update(start=3), "does not fit behind"),
        (lambda v: v["chunks"][1].update(take="../../x"), "'take' must be a whole number"),
        (lambda v: v["chunks"][1].update(state_bytes=10**15), "'state_bytes' must be a whole number"),
        (lambda v: v["chunks"][1].update(video_bytes=5), "is damaged: it has"),
        (lambda v: v["options"].update(codec="../../x"), "codec of a run must be one of"),
        (lambda v: v.update(inputs_bytes=2**39), "is too large"),
        (lambda v: v.update(surprise=1), "unknown entries: 'surprise'"),
        (lambda v: v.update(format_version=3), "made by a newer longvid.*upgrade longvid to go on"),
        (lambda v: v.update(keys=[1, 2]), "has one key; got 2"),
        (lambda v: v["model"].update({"class": "StreamingT2VPipeline"}), "was made with a StreamingT2VPipeline"),
    ],
)
def test_an_edited_manifest_that_checks_out_is_refused_by_what_it_says(run, pipe, edit, message):
    values, before = json.loads((run.path / NAME).read_text()), outside_of(run)
    edit(values)
    reseal(run, values)
    with pytest.raises(ValueError, match=message):
        go_on(run.path, pipe)
    assert outside_of(run) == before


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"format": "longvid-run", "format_version": NaN}', "[" * 10**6]
)
def test_what_is_no_manifest_is_refused(run, text):
    (run.path / NAME).write_text(text)
    with pytest.raises(ValueError, match="run.json"):
        Run(run.path)


def test_a_manifest_that_was_edited_by_hand_is_refused(run):
    text = (run.path / NAME).read_text()
    (run.path / NAME).write_text(text.replace('"width": 16', '"width": 32'))
    with pytest.raises(ValueError, match="edited or damaged: its checksum does not fit"):
        Run(run.path)


def test_a_manifest_of_absurd_size_is_not_read(run):
    with open(run.path / NAME, "r+b") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(ValueError, match="a manifest at most"):
        Run(run.path)


@FEW
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_state_is_refused(half, pipe, place, bit, cut):
    path = half._folder.state(1, half.manifest.chunks[1])
    whole = path.read_bytes()
    data = bytearray(whole)
    data[place % len(data)] ^= 1 << bit
    try:
        path.write_bytes(data[: place % len(data)] if cut else data)
        with pytest.raises(ValueError, match="damaged"):
            go_on(half.path, pipe)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"newest": s["newest"].repeat(1, 1, 2, 2)}, "newest must have shape"),
        (lambda s: {"newest": s["newest"][0]}, "holds|must have shape"),
        (lambda s: {"newest": torch.tensor(1.0)}, "holds 0 videos"),
        (lambda s: {"newest": s["newest"].long()}, "must be floating point"),
        (lambda s: {"evil": s["newest"]}, "a saved state of this model holds anchor, newest, older"),
        (lambda s: {"next_window": 0}, "goes on at window 0; expected 4"),
        (lambda s: {"next_window": 10**12}, "expected 4"),
        (lambda s: {"keys": ("a",)}, "damaged"),
        (lambda s: {"keys": "[" * 10**5}, "damaged"),
        (lambda s: {"next_window": "9" * 5000}, "damaged"),
    ],
)
def test_a_state_that_checks_out_but_holds_something_else_is_refused(run, pipe, change, message):
    path = run._folder.state(1, run.manifest.chunks[1])
    state = StreamState.load(path)
    edited = change(state.context)
    context = {
        **state.context,
        **{name: value for name, value in edited.items() if name not in ("next_window", "keys")},
    }
    keys = edited.get("keys", state.keys)
    metadata = {
        "format": "longvid-stream-state", "format_version": "1",
        "next_window": str(edited.get("next_window", state.next_window)),
        "keys": keys if isinstance(keys, str) else json.dumps(keys),
        "fingerprint": json.dumps(state.fingerprint),
    }  # fmt: skip
    save_file({name: tensor.clone().contiguous() for name, tensor in context.items()}, path, metadata)
    values = json.loads((run.path / NAME).read_text())
    values["chunks"][1].update(state_bytes=path.stat().st_size, state_sha256=digest_of(path))
    reseal(run, values)
    with pytest.raises(ValueError, match=message):
        go_on(run.path, pipe)


@pytest.mark.parametrize("name", ["chunks", "frames", "states", "run.json", "lock", "video.mp4", "inputs.safetensors"])
def test_links_that_lead_out_of_the_folder_are_not_followed(run, pipe, name):
    target, link = run.path.parent / "elsewhere", run.path / name
    link.rename(target)
    link.symlink_to(target)
    before = outside_of(run)
    with pytest.raises(ValueError, match="link|not a run folder"):
        go_on(run.path, pipe)
    assert outside_of(run) == before


def test_a_state_or_chunk_that_is_a_link_is_refused(run, pipe):
    for path in (run._folder.state(1, run.manifest.chunks[1]), run._folder.chunk(0, run.manifest.chunks[0])):
        target = run.path.parent / path.name
        path.rename(target)
        path.symlink_to(target)
        with pytest.raises(ValueError, match="is missing, or not a file"):
            go_on(run.path, pipe)
        path.unlink()
        target.rename(path)


def test_files_of_others_in_the_folder_stay(run, pipe):
    mine = [run.path / "notes.txt", run.path / "chunks" / "best.mp4", run.path / "states" / "copy of 1"]
    for path in mine:
        path.write_text("mine")
    os.link(run.path.parent / "000000-1.mp4", run.path / "chunks" / "000009-1.mp4")  # looks like a left-over
    with pytest.raises(Stop):
        go_on(run.path, pipe)
    assert all(path.read_text() == "mine" for path in mine)
    assert (run.path.parent / "000000-1.mp4").read_text() == "mine"


def test_a_pickle_is_never_read(run, pipe):
    import pickle

    class Evil:
        def __reduce__(self):
            return print, ("evil",)

    path = run._folder.state(1, run.manifest.chunks[1])
    path.write_bytes(pickle.dumps(Evil()))
    values = json.loads((run.path / NAME).read_text())
    values["chunks"][1].update(state_bytes=path.stat().st_size, state_sha256=digest_of(path))
    reseal(run, values)
    with pytest.raises(ValueError, match="damaged, truncated or not a stream state"):
        go_on(run.path, pipe)
