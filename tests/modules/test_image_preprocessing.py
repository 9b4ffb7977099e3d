"""The pixels OpenCLIP sees: the official numbers, and the blur of images that shrink."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from longvid.modules import clip_pixels
from longvid.modules.image_preprocessing import CLIP_MEAN, CLIP_STD
from streaming_t2v_numbers import assert_near, tensors


def plain(images, size):
    resized = torch.nn.functional.interpolate(images, (size, size), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    return ((resized + 1) / 2 - mean) / std


def test_official_numbers():
    numbers = tensors("vi_clip_preprocess")
    assert_near(clip_pixels(numbers["input.image"]), numbers["expected.pixel_values"])
    blank = clip_pixels(torch.zeros(1, 3, 256, 256))
    assert_near(blank[0, :, 100, 100], numbers["expected.pixel_values_of_zero_image_rgb"])


@pytest.mark.parametrize("size", [(16, 24), (32, 32), (33, 32)])
def test_images_that_grow_stay_or_hardly_shrink_are_not_blurred(size):
    images = torch.rand(2, 3, *size) * 2 - 1
    torch.testing.assert_close(clip_pixels(images, 32), plain(images, 32))


def test_images_that_shrink_are_blurred_per_side_and_mirrored_at_the_border():
    image = torch.rand(1, 3, 96, 160) * 2 - 1
    sigmas, taps = (1.0, 2.0), (5, 9)  # factors 3 and 5
    radii = [(count - 1) // 2 for count in taps]
    blurred = gaussian_filter(image[0].numpy(), (0, *sigmas), mode="mirror", radius=(0, *radii))
    torch.testing.assert_close(clip_pixels(image, 32), plain(torch.from_numpy(blurred)[None], 32), atol=1e-5, rtol=0)


def test_what_is_no_image_is_named():
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\); got torch.float32 \(3, 8, 8\)"):
        clip_pixels(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="floating-point.*got torch.uint8"):
        clip_pixels(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
