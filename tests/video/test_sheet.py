import numpy as np
import pytest
import torch
from PIL import Image

from longvid.video import VideoWriter, contact_sheet, read_video
from longvid.video.sheet import _pick_evenly


def numbered(num_frames, height=8, width=8):
    """Frame f is filled with the value f."""
    return np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, height, width, 3), dtype=np.uint8)


def values_on(page, height=8, width=8, labels=False):
    pixels = np.asarray(page)[:, :, 0]
    rows = range(4 + height // 2, pixels.shape[0], height + 4 + 14 * labels)
    columns = range(4 + width // 2, pixels.shape[1], width + 4)
    return [int(pixels[row, column]) for row in rows for column in columns if pixels[row, column] != 255]


def test_every_frame_of_a_short_video_is_drawn_in_order():
    page = contact_sheet(numbered(10), columns=4, labels=False)
    assert (page.mode, page.size) == ("RGB", (4 + 4 * 12, 4 + 3 * 12))
    assert values_on(page) == list(range(10))


@pytest.mark.parametrize("num_frames", [7, 12, 13, 31, 64, 100, 250])
@pytest.mark.parametrize("max_frames", [1, 2, 3, 6, 12])
def test_of_a_long_video_frames_are_picked_evenly_from_first_to_last(num_frames, max_frames):
    numbers, images = _pick_evenly(iter(numbered(num_frames)), max_frames)
    assert len(numbers) == min(max_frames, num_frames)
    assert numbers[0] == 0
    assert max_frames == 1 or numbers[-1] == num_frames - 1
    assert [int(image[0, 0, 0]) for image in images] == numbers
    if len(numbers) > 1:
        ideal = (num_frames - 1) / (len(numbers) - 1)
        assert np.abs(np.array(numbers) - ideal * np.arange(len(numbers))).max() <= ideal / 2 + 0.5


def test_a_stream_is_read_once_and_not_held():
    def stream():
        for _ in range(100):
            alive.append(None)
            yield torch.zeros(1, 3, 5, 8, 8)

    alive = []
    contact_sheet(stream(), max_frames=4)
    assert len(alive) == 100


def test_a_file_a_tensor_and_an_array_give_the_same_page(tmp_path):
    frames = numbered(9, 10, 12)
    with VideoWriter(tmp_path / "video") as writer:
        writer.write(frames)
    tensor = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
    pages = [contact_sheet(source) for source in (frames, tensor, read_video(tmp_path / "video"))]
    assert pages[0].tobytes() == pages[1].tobytes() == pages[2].tobytes()


def test_labels_stand_below_the_frames_and_touch_none():
    plain, labelled = contact_sheet(numbered(4), columns=2, labels=False), contact_sheet(numbered(4), columns=2)
    assert values_on(labelled, labels=True) == values_on(plain) == [0, 1, 2, 3]
    below = np.asarray(labelled)[4 + 8 : 4 + 8 + 14, 4:16]
    assert (below < 128).any()


def test_labels_can_be_ones_own_and_stand_for_the_frames_of_the_video():
    numbers = contact_sheet(numbered(9), max_frames=3)
    assert contact_sheet(numbered(9), max_frames=3, labels=range(9)).tobytes() == numbers.tobytes()
    assert contact_sheet(numbered(9), max_frames=3, labels=list("abcdefghi")).tobytes() != numbers.tobytes()


def test_the_page_of_a_wide_video_is_about_square():
    width, height = contact_sheet(numbered(36, 20, 80), labels=False).size
    assert 0.5 < width / height < 2


def test_the_page_can_be_saved(tmp_path):
    page = contact_sheet(numbered(4), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert saved.tobytes() == page.tobytes()


@pytest.mark.parametrize(
    ("frames", "options", "complaint"),
    [
        (numbered(3), {"max_frames": 0}, "max_frames must be at least 1; got 0"),
        (numbered(3), {"columns": 0}, "columns must be at least 1; got 0"),
        ([], {}, "at least one frame; got none"),
        (7, {}, "got int"),
        (numbered(3), {"labels": ["a", "b"]}, "at least 3 frames; got 2 labels"),
        ([numbered(1, 8, 8), numbered(1, 8, 9)], {}, "frame 1 is 8 x 9, those before are 8 x 8"),
        (numbered(3), {"path": "sheet.mp4"}, "suffix of an image"),
        (numbered(3), {"path": "nowhere/sheet.png"}, "cannot write the contact sheet"),
    ],
)
def test_what_cannot_be_drawn_is_refused(frames, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        contact_sheet(frames, **options)
