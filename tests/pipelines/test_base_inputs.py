from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from longvid.pipelines.inputs import image_batch, video_batch


def picture(height=8, width=8):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_kind_of_image_gives_the_same_pixels():
    array = picture()
    expected = torch.from_numpy(array).permute(2, 0, 1).float()[None] / 127.5 - 1
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for image in (array, Image.fromarray(array), array.astype(np.float32) / 255, tensor, tensor.double() / 255):
        torch.testing.assert_close(image_batch(image, 8, 8), expected, atol=1e-6, rtol=0)
    assert image_batch([array, Image.fromarray(array)], 8, 8).shape == (2, 3, 8, 8)
    assert image_batch(np.stack([array] * 3), 8, 8).shape == (3, 3, 8, 8)
    assert image_batch(torch.stack([tensor] * 2), 8, 8).shape == (2, 3, 8, 8)


def test_a_grey_or_transparent_pil_image_becomes_rgb():
    for mode in ("L", "RGBA", "P", "1"):
        assert image_batch(Image.fromarray(picture()).convert(mode), 8, 8).shape == (1, 3, 8, 8)


def test_another_size_covers_the_frame_and_is_cut_at_the_centre():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert float(image_batch(wide, 8, 8).min()) == 1.0
    assert image_batch(picture(10, 33), 16, 24).shape == (1, 3, 16, 24)
    assert float(image_batch(picture(10, 33), 16, 24).abs().max()) <= 1.0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("photo.png", "got str"),
        (None, "got NoneType"),
        ([], "image is empty"),
        (np.zeros((8, 8)), r"of shape \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"of shape \(8, 8, 4\)"),
        (torch.zeros(8, 8, 3), r"of shape \(8, 8, 3\)"),
        (torch.zeros(3, 0, 8), r"of shape \(3, 0, 8\)"),
        (np.zeros((8, 8, 3), np.int64), "uint8 or floating point; got torch.int64"),
        (torch.full((3, 8, 8), -1.0), r"must lie in \[0, 1\]; got values from -1 to -1"),
        (np.full((8, 8, 3), 255.0), "got values from 255 to 255"),
        (torch.full((3, 8, 8), float("nan")), r"must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_expected(image, message):
    with pytest.raises(ValueError, match=message):
        image_batch(image, 8, 8)


def test_every_kind_of_video_gives_the_same_frames():
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    expected, count = video_batch(array, 8, 8, keep=(-1, -2, 0))
    assert count == 5 and expected.shape == (1, 3, 3, 8, 8)
    torch.testing.assert_close(expected[0, :, 2], tensor[0].float() / 127.5 - 1)
    pil = [Image.fromarray(frame) for frame in array]
    for video in (pil, iter(pil), tensor, tensor.float() / 255, tensor.transpose(0, 1)[None], array[None]):
        frames, count = video_batch(video, 8, 8, keep=(-1, -2, 0))
        assert count == 5
        torch.testing.assert_close(frames, expected, atol=1e-6, rtol=0)


def test_a_long_video_is_read_once_and_not_kept():
    alive = []

    class Frames:
        def __iter__(self):
            for index in range(50):
                yield torch.full((3, 8, 8), index / 100)
                alive.append(index)

    frames, count = video_batch(Frames(), 8, 8, keep=(-1, -2, 7))
    assert count == 50 and alive == list(range(50))
    torch.testing.assert_close(frames[0, 0, :, 0, 0], torch.tensor([0.49, 0.48, 0.07]) * 2 - 1)


def test_a_video_of_one_frame_is_its_own_predecessor():
    frames, _ = video_batch(torch.rand(1, 3, 8, 8), 8, 8, keep=(-1, -2, -1))
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])


@pytest.mark.parametrize("video", ["clip.mp4", 3, torch.zeros(3, 8, 8), np.zeros((8, 8, 3)), {}])
def test_what_is_no_video_is_refused(video):
    with pytest.raises(ValueError, match="video must be"):
        video_batch(video, 8, 8, keep=(-1,))


def test_an_empty_video_and_a_frame_it_does_not_have_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        video_batch([], 8, 8, keep=(-1,))
    with pytest.raises(ValueError, match="video has 2 frames; frame 2 was asked for"):
        video_batch(torch.zeros(2, 3, 8, 8), 8, 8, keep=(2,))
