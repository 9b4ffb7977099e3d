"""FVD and inception score: over whole clips, on networks whose answer is known and on tiny real ones."""

import math

import pytest
import torch
from torch import Tensor, nn

from longvid.metrics import MissingWeights, make_metric
from longvid.metrics.frechet import RunningMoments, frechet_distance
from longvid.metrics.fvd import gather_moments
from longvid.metrics.video_features import Clips, I3DFeatures, VideoMAEFeatures, resize_clips
from longvid.video.io import VideoWriter


class MeanAndMotion:
    """Features of a clip: its mean colour, and its mean change from frame to frame."""

    name = "mean and motion"
    clip_frames = 4

    def __call__(self, clips):
        return torch.cat([clips.mean((2, 3, 4)), clips.diff(dim=2).abs().mean((1, 2, 3, 4))[:, None]], dim=1)


def video(seed, num_frames=8, *, noise=0.0, size=6):
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(3, size, size, generator=generator) * 0.5
    frames = torch.stack([base.roll(step, dims=-1) for step in range(num_frames)])
    return frames + noise * torch.rand(frames.shape, generator=generator)


def measure_fvd(videos, reference, *, pieces=1000):
    metric = make_metric("fvd", features=MeanAndMotion(), reference=reference)
    for frames in videos:
        for piece in frames.split(pieces):
            metric.update(piece)
        metric.end_video()
    return metric.compute()


@pytest.fixture(scope="module")
def reference():
    return gather_moments((iter(video(seed)) for seed in range(20)), MeanAndMotion())


def test_the_fvd_of_the_reference_itself_is_zero_and_noise_raises_it(reference):
    values = [
        measure_fvd([video(seed, noise=noise) for seed in range(20)], reference).value for noise in (0.0, 0.1, 0.4)
    ]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[0] < values[1] < values[2]


def test_the_fvd_is_the_distance_of_the_features_of_whole_clips(reference):
    frames = [video(seed, num_frames=10) for seed in range(30, 36)]
    clips = torch.stack([part.transpose(0, 1) for one in frames for part in (one[:4], one[4:8])])
    expected = RunningMoments()
    expected.update(MeanAndMotion()(clips))
    result = measure_fvd(frames, reference)
    assert result.value == pytest.approx(frechet_distance(expected, reference), rel=1e-6)
    assert result.details["clips"] == 12


def test_the_pieces_in_which_frames_come_change_nothing(reference):
    frames = [video(seed, num_frames=9) for seed in range(3)]
    assert measure_fvd(frames, reference, pieces=3) == measure_fvd(frames, reference)


def test_one_clip_has_no_fvd_and_says_why(reference):
    result = measure_fvd([video(0, num_frames=5)], reference)
    assert result.value is None and "two clips of 4 frames" in result.note


def test_reference_videos_are_read_from_a_folder_or_from_saved_moments(tmp_path, reference):
    (tmp_path / "real").mkdir()
    for seed in range(3):
        with VideoWriter(tmp_path / "real" / f"{seed}", fps=8) as writer:
            writer.write(video(seed))
    expected = gather_moments((((video(seed) * 255).round() / 255).unbind() for seed in range(3)), MeanAndMotion())
    read = make_metric("fvd", features=MeanAndMotion(), reference=tmp_path / "real").reference
    assert read.count == expected.count == 6
    assert torch.allclose(read.covariance(), expected.covariance(), atol=1e-9)
    reference.save(tmp_path / "moments.safetensors")
    saved = make_metric("fvd", features=MeanAndMotion(), reference=tmp_path / "moments.safetensors").reference
    assert torch.equal(saved.mean, reference.mean)


class FlaggedScript(nn.Module):
    """A network with the signature of StyleGAN-V's I3D that shows which flags came in."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        flags = torch.tensor([float(rescale), float(resize), float(return_features)], device=x.device)
        ends = torch.stack([x.amin(), x.amax(), torch.tensor(float(x.shape[-1]))])
        return torch.cat([flags, ends])[None].expand(x.shape[0], -1)


class PlainScript(nn.Module):
    """A network without flags; probabilities over two classes by brightness, for pixels in [0, 255]."""

    def forward(self, x: Tensor) -> Tensor:
        share = x.mean(dim=(1, 2, 3, 4)) / 255
        return torch.stack([share, 1 - share], dim=1)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    torch.jit.script(FlaggedScript()).save(str(folder / "i3d.pt"))
    torch.jit.script(PlainScript()).save(str(folder / "c3d.pt"))
    return folder


def test_i3d_gets_clips_of_its_size_and_range_and_is_told_to_leave_them(scripts):
    clips = torch.rand(1, 3, 16, 8, 8)
    clips[0, 0, 0, :4], clips[0, 0, 0, 4:] = 0, 1
    (features,) = I3DFeatures(scripts / "i3d.pt", device="cpu")(clips)
    assert features.tolist() == pytest.approx([0, 0, 1, -1, 1, 224])
    assert I3DFeatures(scripts / "c3d.pt", device="cpu")(clips).shape == (1, 2)


def test_c3d_reads_pixels_up_to_255_and_gives_an_inception_score(scripts):
    metric = make_metric("is", classifier=f"c3d:{scripts / 'c3d.pt'}", device="cpu")
    for brightness in (0.0, 1.0):
        metric.update(torch.full((17, 3, 4, 4), brightness))
        metric.end_video()
    result = metric.compute()
    assert result.value == pytest.approx(2)
    assert result.details["clips"] == 2


def test_videomae_gives_the_mean_of_its_tokens(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=3, use_mean_pooling=True,
    )  # fmt: skip
    clips = torch.rand(2, 3, 4, 16, 16)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, None, :, None, None]
    pixels = (clips.transpose(1, 2) - mean) / std
    for kind in (VideoMAEModel, VideoMAEForVideoClassification):
        torch.manual_seed(0)
        model = kind(config).eval()
        model.save_pretrained(tmp_path / kind.__name__)
        network = VideoMAEFeatures(tmp_path / kind.__name__, device="cpu")
        with torch.no_grad():
            if kind is VideoMAEModel:
                expected = model(pixels).last_hidden_state.mean(1)
                got = network(clips)
            else:
                expected = model(pixels).logits
                got = model.classifier(network(clips))
        assert network.clip_frames == 4
        assert torch.allclose(got, expected, atol=1e-5)


def inception(probabilities, **options):
    class Nothing:
        name, clip_frames = "given", 1

        def __call__(self, clips):
            raise AssertionError

    metric = make_metric("is", classifier=Nothing(), **options)
    metric.add_probabilities(torch.tensor(probabilities))
    return metric.compute()


def test_the_inception_score_lies_between_one_and_the_number_of_classes():
    assert inception([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]).value == pytest.approx(3)
    assert inception([[0.2, 0.5, 0.3]] * 4).value == pytest.approx(1)


def test_the_inception_score_is_the_exponential_of_the_mean_divergence():
    rows = torch.softmax(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), dim=1).double()
    divergence = sum(float((row * (row / rows.mean(0)).log()).sum()) for row in rows) / 9
    result = inception(rows.tolist())
    assert result.value == pytest.approx(math.exp(divergence), rel=1e-6)
    sharper = (rows**3 / (rows**3).sum(1, keepdim=True)).tolist()
    assert inception(sharper).value > result.value


def test_splits_take_turns_and_their_scores_are_averaged():
    rows = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]
    result = inception(rows, splits=2)
    assert result.value == pytest.approx((2 + 1) / 2)
    assert result.details["standard deviation over splits"] == pytest.approx(0.5)


def test_what_are_no_probabilities_is_an_error():
    with pytest.raises(ValueError, match="class probabilities"):
        inception([[0.5, 0.2]])


def test_clips_are_whole_do_not_overlap_and_do_not_reach_into_the_next_video():
    frames = torch.arange(11.0)[:, None, None, None].expand(11, 3, 1, 1)
    clips = Clips(4)
    found = [clip[0, 0, :, 0, 0].tolist() for piece in frames.split(3) for clip in clips.add(piece)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7]]
    clips.drop()
    assert [clip[0, 0, :, 0, 0].tolist() for clip in clips.add(frames[:5])] == [[0, 1, 2, 3]]
    assert resize_clips(torch.ones(2, 3, 4, 6, 5), 8).shape == (2, 3, 4, 8, 8)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(MissingWeights, match=r"i3d_torchscript.pt.*videomae"):
        make_metric("fvd")
    with pytest.raises(MissingWeights, match="fvd.reference=PATH"):
        make_metric("fvd", features=MeanAndMotion())
    with pytest.raises(MissingWeights, match="nothing at fvd.reference"):
        make_metric("fvd", features=MeanAndMotion(), reference=str(tmp_path / "no"))
    with pytest.raises(MissingWeights, match="nothing at fvd.features=i3d"):
        make_metric("fvd", features=f"i3d:{tmp_path / 'no.pt'}", reference=RunningMoments())
    with pytest.raises(MissingWeights, match="c3d_ucf101.pt"):
        make_metric("is")
    with pytest.raises(ValueError, match="i3d:FILE or videomae:FOLDER"):
        make_metric("fvd", features="resnet", reference=RunningMoments())
    (tmp_path / "weights.pt").write_bytes(b"no program")
    with pytest.raises(ValueError, match="not a TorchScript file"):
        make_metric("fvd", features=f"i3d:{tmp_path / 'weights.pt'}", reference=RunningMoments())
