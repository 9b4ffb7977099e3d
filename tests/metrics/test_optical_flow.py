import pytest
import torch

from longvid.metrics import MissingWeights
from longvid.metrics.flow import DISFlow, FramePairs, RAFTFlow, SharedFlow, flow_name, make_flow, raft_cache
from metrics_videos import one_way, texture, translated


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (-1, 2)])
def test_dis_finds_the_translation_of_a_texture(dx, dy):
    pytest.importorskip("cv2")
    first, second = translated(2, dx=dx, dy=dy, size=64)
    flow = DISFlow()(first, second)
    assert flow.shape == (2, 64, 64)
    found = flow[:, 8:-8, 8:-8].flatten(1).median(1).values
    torch.testing.assert_close(found, torch.tensor([float(dx), float(dy)]), rtol=0, atol=0.15)


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (16, 40)])
def test_dis_takes_frames_of_any_size(shape):
    pytest.importorskip("cv2")
    frame = torch.rand(3, *shape)
    assert DISFlow()(frame, frame).shape == (2, *shape)


def test_a_shared_flow_is_computed_once_per_pair():
    calls = []

    def flow(a, b):
        calls.append(1)
        return one_way(1)(a, b)

    shared = SharedFlow(flow)
    first, second = texture(8), texture(8, seed=1)
    for _ in range(3):
        shared(first, second), shared(second.clone(), first.clone())
    assert len(calls) == 2 and shared.name == "flow"


def test_an_answer_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must answer with \(2, 8, 8\); got \(8, 8, 2\)"):
        SharedFlow(lambda a, b: torch.zeros(8, 8, 2))(texture(8), texture(8))


def test_pairs_do_not_depend_on_how_the_video_is_cut():
    video = translated(7, size=16)
    for cuts in ([7], [1] * 7, [3, 4], [1, 5, 1]):
        pairs = FramePairs(None)
        found = [pair for part in video.split(cuts) for pair in pairs(part)]
        assert len(found) == 6
        for index, (a, b) in enumerate(found):
            assert torch.equal(a, video[index]) and torch.equal(b, video[index + 1])


def test_without_weights_raft_says_which_file_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeights, match="raft_large_C_T_SKHT_V2-ff5fadd5.pth"):
        make_flow("raft")
    with pytest.raises(MissingWeights, match="nowhere.pth"):
        make_flow(weights=tmp_path / "nowhere.pth")


def test_without_opencv_dis_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingWeights, match="pip install"):
        make_flow("dis")


def test_dis_is_taken_where_raft_has_no_weights(tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert flow_name(make_flow()) == "OpenCV DIS"


def test_another_name_and_weights_of_dis_are_refused():
    with pytest.raises(ValueError, match="'raft' or 'dis'; got 'lk'"):
        make_flow("lk")
    with pytest.raises(ValueError, match="DIS takes no weights"):
        make_flow("dis", weights="file.pth")


def test_a_file_without_raft_in_it_is_refused(tmp_path):
    pytest.importorskip("torchvision")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="damaged"):
        RAFTFlow(tmp_path / "text.pth")
    with pytest.raises(ValueError, match="raft_large"):
        RAFTFlow(tmp_path / "other.pth")


@pytest.mark.slow
def test_raft_is_torchvisions_network_on_frames_of_any_size(tmp_path, monkeypatch):
    models = pytest.importorskip("torchvision.models.optical_flow")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = models.raft_large(weights=None, progress=False).eval()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    raft_cache().parent.mkdir(parents=True)
    torch.save(network.state_dict(), raft_cache())
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "raft.safetensors")
    first, second = translated(2, size=128)
    with torch.no_grad():
        expected = network(first[None] * 2 - 1, second[None] * 2 - 1)[-1][0]
    flow = make_flow()
    assert flow.name == "RAFT large"
    torch.testing.assert_close(flow(first, second), expected, rtol=1e-4, atol=1e-4)
    other = RAFTFlow(tmp_path / "raft.safetensors")(first[:, :50, :70], second[:, :50, :70])
    assert other.shape == (2, 50, 70) and other.isfinite().all()
