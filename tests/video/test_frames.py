import numpy as np
import pytest
import torch
from PIL import Image

from longvid.video.frames import uint8_frames

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(PIXELS)


@pytest.mark.parametrize(
    "frames",
    [
        TENSOR.permute(3, 0, 1, 2)[None],
        TENSOR.permute(3, 0, 1, 2),
        TENSOR.permute(0, 3, 1, 2),
        TENSOR.permute(0, 3, 1, 2)[None],
        TENSOR,
        PIXELS,
        PIXELS[None],
        PIXELS.transpose(3, 0, 1, 2),
        PIXELS.transpose(3, 0, 1, 2)[None],
        [Image.fromarray(frame) for frame in PIXELS],
        TENSOR.permute(3, 0, 1, 2)[None].double() / 255,
        TENSOR.permute(3, 0, 1, 2).float().requires_grad_() / 255,
        PIXELS / 255,
        PIXELS.astype(np.float32) / 255,
    ],
    ids=lambda frames: f"{type(frames).__name__}-{getattr(frames, 'dtype', '')}-{tuple(np.shape(frames))}",
)
def test_every_way_to_hold_a_video_gives_the_same_pixels(frames):
    assert np.array_equal(uint8_frames(frames), PIXELS)


@pytest.mark.parametrize("frame", [TENSOR[0].permute(2, 0, 1), TENSOR[0], PIXELS[0], Image.fromarray(PIXELS[0])])
def test_one_frame_is_a_video_of_length_one(frame):
    assert np.array_equal(uint8_frames(frame), PIXELS[:1])


def test_three_frames_of_a_canonical_tensor_are_not_mixed_up_with_its_channels():
    video = TENSOR[:3].permute(3, 0, 1, 2)
    assert np.array_equal(uint8_frames(video[None]), PIXELS[:3])
    with pytest.raises(ValueError, match=r"can mean \(3, F, H, W\) or \(F, 3, H, W\); pass \(1, 3, F, H, W\)"):
        uint8_frames(video)


def test_every_8_bit_value_survives_as_a_float_of_any_precision_that_can_tell_them_apart():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert np.array_equal(uint8_frames(values.to(dtype) / 255), uint8_frames(values))


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (torch.full((3, 4, 6), 1.01), "must lie in .*1.01"),
        (torch.full((3, 4, 6), -1.0), r"for pixels in \[-1, 1\] pass \(frames \+ 1\) / 2"),
        (torch.full((3, 4, 6), float("nan")), "values from nan to nan"),
        (np.full((4, 6, 3), np.inf), "to inf"),
        (torch.zeros(3, 4, 6, dtype=torch.int64), "must be uint8 or floating point; got int64"),
        (torch.zeros(1, 4, 6), r"got shape \(1, 4, 6\)"),
        (torch.zeros(2, 3, 5, 4, 6), "a batch of 2 videos"),
        (torch.zeros(3, 0, 4, 6), r"got shape \(3, 0, 4, 6\)"),
        (np.zeros((4, 6)), r"got shape \(4, 6\)"),
        ("demo.mp4", "got str"),
        ([], "got list"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))], r"one size; got .*\(4, 4\), \(4, 5\)"),
    ],
)
def test_anything_else_is_refused(frames, complaint):
    with pytest.raises(ValueError, match=complaint):
        uint8_frames(frames)
