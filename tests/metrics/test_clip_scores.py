"""CLIP scores with the bundled tiny CLIP, with OpenCLIP at random, and with encoders whose answer is known."""

import math

import pytest
import torch

from longvid.metrics import MissingWeights, make_metric
from longvid.metrics.encoders import TINY, OpenCLIP, fit_images, load_encoder
from longvid.sprites import caption_frame, draw, sample_scene


class MeanColour:
    """Features of a frame are its mean colour; a text is a colour by its first letter."""

    name = "mean colour"

    def encode_images(self, frames):
        return frames.mean((-2, -1))

    def encode_text(self, text):
        return torch.eye(3)["rgb".index(text[0])]

    def excess_tokens(self, text):
        return max(0, len(text.split()) - 2)


def plain(*colours, size=4):
    return torch.stack([torch.tensor(colour).float()[:, None, None].expand(3, size, size) for colour in colours])


def measure(name, frames, *, pieces=1000, **options):
    metric = make_metric(name, **options)
    for piece in frames.split(pieces):
        metric.update(piece)
    return metric.compute()


def test_the_text_score_is_the_mean_cosine_in_closed_form():
    frames = plain((1, 0, 0), (1, 1, 0), (0, 1, 0))
    result = measure("clip_score", frames, prompt="red", clip=MeanColour())
    assert result.value == pytest.approx((1 + 1 / math.sqrt(2) + 0) / 3)
    assert result.curve == pytest.approx((1, 1 / math.sqrt(2), 0))
    assert "mean colour" in result.note


def test_the_consistency_is_the_mean_cosine_of_neighbours_in_closed_form():
    frames = plain((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 0))
    result = measure("clip_consistency", frames, clip=MeanColour())
    assert result.value == pytest.approx((2 / math.sqrt(2) + 1) / 3)
    assert result.details["last frame to first frame"] == pytest.approx(0)
    assert (result.curve_start, len(result.curve)) == (1, 3)


def test_a_text_that_is_too_long_is_cut_and_the_note_says_so():
    assert "2 tokens" in measure("clip_score", plain((1, 0, 0)), prompt="red a b c", clip=MeanColour()).note


def test_one_frame_has_no_consistency_and_no_prompt_is_an_error():
    assert measure("clip_consistency", plain((1, 0, 0)), clip=MeanColour()).value is None
    with pytest.raises(ValueError, match="prompt"):
        make_metric("clip_score", clip=MeanColour())


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(seed) for seed in range(6)]


def test_the_bundled_clip_prefers_the_caption_of_a_scene_to_that_of_another(scenes):
    wins = 0
    for index, scene in enumerate(scenes):
        frames = draw([scene], 4)[0].transpose(0, 1)
        right = measure("clip_score", frames, prompt=caption_frame(scene, 0, 1))
        other = scenes[(index + 1) % len(scenes)]
        wins += right.value > measure("clip_score", frames, prompt=caption_frame(other, 0, 1)).value
    assert wins >= 5
    assert TINY in right.note and "built-in world" in right.note


def test_shuffled_scenes_are_less_consistent_than_one_scene(scenes):
    video = draw([scenes[0]], 6)[0].transpose(0, 1)
    shuffled = torch.stack([draw([scene], 1)[0, :, 0] for scene in scenes])
    assert measure("clip_consistency", video).value > measure("clip_consistency", shuffled).value + 0.05


def test_the_pieces_in_which_frames_come_change_nothing(scenes):
    video = draw([scenes[1]], 7)[0].transpose(0, 1)
    for name, options in (("clip_score", {"prompt": "a red circle"}), ("clip_consistency", {})):
        whole = measure(name, video, **options)
        for pieces in (1, 3):
            part = measure(name, video, pieces=pieces, **options)
            assert part.curve == pytest.approx(whole.curve, abs=1e-5)


def test_frames_of_any_shape_are_fitted_as_clip_is_used_to():
    frames = torch.rand(2, 3, 40, 64)
    fitted = fit_images(frames, 20, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert fitted.shape == (2, 3, 20, 20)
    assert fitted.abs().max() <= 1
    untouched = fit_images(frames[..., :40], 40, (0, 0, 0), (1, 1, 1))
    assert torch.equal(untouched, frames[..., :40])


@pytest.mark.slow  # the import of open_clip alone takes seconds
def test_fitting_agrees_with_open_clips_own_preprocessing_of_pictures():
    pytest.importorskip("torchvision")
    package = pytest.importorskip("open_clip")
    from PIL import Image

    size, scale = 24, (0.5, 0.5, 0.5)
    transform = package.image_transform(size, is_train=False, mean=scale, std=scale)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 9), size=(60, 90), mode="bicubic").clamp(0, 1)
    pixels = (smooth[0] * 255).round().byte()
    expected = transform(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    assert (fit_images(pixels[None] / 255, size, scale, scale)[0] - expected).abs().max() < 0.02


@pytest.fixture(scope="module")
def open_clip_weights(tmp_path_factory):
    """A tiny OpenCLIP architecture under a name of its own, and a file of random weights for it."""
    package = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "tiny-for-tests.json").write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
        ' "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}'
    )
    package.add_model_config(folder / "tiny-for-tests.json")
    torch.manual_seed(0)
    model = package.create_model("tiny-for-tests")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "tiny.safetensors")
    return folder / "tiny.safetensors", model.eval()


@pytest.mark.slow  # the import of open_clip alone takes seconds
def test_an_open_clip_model_is_read_from_a_file_and_gives_its_own_features(open_clip_weights):
    path, model = open_clip_weights
    encoder = load_encoder(f"open_clip:tiny-for-tests:{path}", "cpu")
    assert isinstance(encoder, OpenCLIP)
    frames = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.encode_image(fit_images(frames, 32))
    assert torch.allclose(encoder.encode_images(frames), expected, atol=1e-6)
    assert encoder.encode_text("a red circle").shape == (16,)
    assert encoder.excess_tokens("a red circle") == 0
    assert encoder.excess_tokens("one two three four five six seven eight nine ten eleven") == 1
    score = measure("clip_score", frames, prompt="a red circle", clip=encoder)
    assert -1 <= score.value <= 1


def test_an_encoder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingWeights, match="no CLIP at clip="):
        load_encoder(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingWeights, match="CLIPModel"):
        load_encoder(str(tmp_path / "empty"))
    with pytest.raises(MissingWeights, match="holds no CLIP"):
        load_encoder("longvid/art-v-tiny")


@pytest.mark.slow
def test_an_open_clip_model_or_file_that_is_not_there_is_named():
    pytest.importorskip("open_clip")
    with pytest.raises(MissingWeights, match=r"no file 'nowhere.pt'.*openai"):
        load_encoder("open_clip:ViT-L-14:nowhere.pt")
    with pytest.raises(MissingWeights, match="knows no model"):
        load_encoder("open_clip:ViT-L-15:openai")
