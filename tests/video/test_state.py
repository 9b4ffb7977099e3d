import json
import os

import pytest
import torch
from safetensors.torch import save_file

from longvid.video import StreamState, VideoChunk
from longvid.video.state import FORMAT, FORMAT_VERSION


@pytest.fixture
def state():
    base = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    context = {
        "references": base,
        "anchor": base[:, 1:3],  # a view of the same storage
        "turned": base.transpose(2, 3),  # not contiguous
        "half": base.half(),
        "brain": base.bfloat16(),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
        "count": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
    }
    return StreamState(12, context, keys=(2**62 + 1, -5), fingerprint={"model": "longvid/art-v-tiny", "äöü": "✓"})


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def test_a_loaded_state_equals_the_saved_one_bit_for_bit(state, tmp_path):
    state.save(tmp_path / "state.safetensors")
    loaded = StreamState.load(tmp_path / "state.safetensors")
    assert (loaded.next_window, loaded.keys, loaded.fingerprint) == (12, state.keys, state.fingerprint)
    assert loaded.context.keys() == state.context.keys()
    for name, tensor in state.context.items():
        assert loaded.context[name].dtype == tensor.dtype
        assert loaded.context[name].shape == tensor.shape
        assert bits(loaded.context[name]) == bits(tensor)


def test_an_empty_state_survives_too(tmp_path):
    StreamState(0).save(tmp_path / "state")
    loaded = StreamState.load(str(tmp_path / "state"))
    assert (loaded.next_window, loaded.context, loaded.keys, loaded.fingerprint) == (0, {}, (), {})


def test_saving_replaces_the_old_state_and_leaves_nothing_beside_it(state, tmp_path):
    StreamState(3).save(tmp_path / "state")
    state.save(tmp_path / "state")
    assert StreamState.load(tmp_path / "state").next_window == 12
    assert os.listdir(tmp_path) == ["state"]


def test_a_failed_save_leaves_the_old_state_whole(state, tmp_path, monkeypatch):
    StreamState(3).save(tmp_path / "state")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        state.save(tmp_path / "state")
    assert StreamState.load(tmp_path / "state").next_window == 3
    assert os.listdir(tmp_path) == ["state"]


def test_a_loaded_state_does_not_depend_on_its_file(state, tmp_path):
    state.save(tmp_path / "state")
    loaded = StreamState.load(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"")
    assert bits(loaded.context["references"]) == bits(state.context["references"])


def test_a_truncated_file_is_refused_wherever_it_ends(state, tmp_path):
    path = tmp_path / "state"
    state.save(path)
    data = path.read_bytes()
    for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="damaged, truncated or not a stream state"):
            StreamState.load(path)


@pytest.mark.parametrize("content", [b"hello world, this is no tensor file", b"\x80\x02}q\x00.", b"\xff" * 64])
def test_a_foreign_file_is_refused(content, tmp_path):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(ValueError, match="damaged, truncated or not a stream state"):
        StreamState.load(tmp_path / "state")


def test_the_weights_of_a_model_are_not_a_state(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not a stream state saved by longvid"):
        StreamState.load(tmp_path / "model.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no stream state file at"):
        StreamState.load(tmp_path / "nowhere")


def test_a_state_of_a_newer_version_asks_for_an_upgrade(tmp_path):
    save_with(tmp_path / "state", format_version=str(FORMAT_VERSION + 1))
    with pytest.raises(ValueError, match="newer longvid.*upgrade"):
        StreamState.load(tmp_path / "state")


@pytest.mark.parametrize(
    "wrong",
    [
        {"format_version": "one"},
        {"next_window": "-1"},
        {"next_window": "soon"},
        {"keys": "[1, 2"},
        {"keys": '["a"]'},
        {"keys": "3"},
        {"fingerprint": "[]"},
        {"fingerprint": '{"a": 1}'},
    ],
)
def test_damaged_metadata_is_refused(wrong, tmp_path):
    save_with(tmp_path / "state", **wrong)
    with pytest.raises(ValueError, match="is a damaged stream state"):
        StreamState.load(tmp_path / "state")


def save_with(path, **changes):
    metadata = {"format": FORMAT, "format_version": "1", "next_window": "0", "keys": "[]", "fingerprint": "{}"}
    assert json.loads(metadata["keys"]) == []
    save_file({"x": torch.zeros(1)}, path, metadata={**metadata, **changes})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"next_window": -1}, "next_window must be an integer of at least 0; got -1"),
        ({"next_window": 1.0}, "got 1.0"),
        ({"next_window": 0, "context": {"x": [1, 2]}}, "names to tensors; got 'x': list"),
        ({"next_window": 0, "keys": [1]}, "keys must be a tuple of integers"),
        ({"next_window": 0, "fingerprint": {"version": 1}}, "text to text; got 'version': 1"),
    ],
)
def test_a_state_that_could_not_be_saved_is_refused_when_made(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        StreamState(**arguments)


def test_a_missing_folder_is_named(state, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        state.save(tmp_path / "missing" / "state")


def test_a_chunk_knows_where_its_frames_stand():
    chunk = VideoChunk(torch.zeros(2, 3, 5, 8, 8), start=16, state=StreamState(3))
    assert (chunk.start, chunk.stop, chunk.num_frames, chunk.extras) == (16, 21, 5, {})
